//! `GET /v1/executions` and `/v1/executions/count`: which executions there are.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use cascade_cdl::Timestamp;
use cascade_cdl::tags::{Scalar, is_attribute_name, is_label_name};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::executions::ExecutionView;
use super::list;
use super::position::Reads;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Caller, Query, Viewer};
use super::{ApiState, json};
use crate::store::{Counts, Filter, MAX_TAG_TESTS, Operator, StatusName, TagTest};

/// A list's page, if the client does not say.
const DEFAULT_PAGE: u32 = 50;

/// The longest page of a list.
const MAX_PAGE: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(count))
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
struct ExecutionPage {
    items: Vec<ExecutionView>,
    /// The cursor of the next page; absent at the end. A page may be short, or empty, and
    /// have a next: it has looked at as much as one request may.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// How many there are.
#[derive(Serialize, ToSchema)]
struct Counted {
    count: u64,
    /// Whether there may be more: it has looked at as many as one request may, the newest.
    at_least: bool,
    /// By `group`, if that is given; only those of which there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<Group>>,
}

#[derive(Serialize, ToSchema)]
struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "completed")]
    status: Option<StatusName>,
    count: u64,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FilterQuery {
    application: Option<String>,
    workflow: Option<String>,
    /// Only what is placed by this key.
    shard_key: Option<String>,
    /// `running`, `paused`, `completed`, `failed`, `cancelled` or `timed_out`.
    #[param(value_type = Option<String>)]
    status: Option<StatusName>,
    /// Milliseconds since the Unix epoch.
    started_after: Option<u64>,
    /// Milliseconds since the Unix epoch.
    started_before: Option<u64>,
    /// Milliseconds since the Unix epoch.
    closed_after: Option<u64>,
    /// Milliseconds since the Unix epoch.
    closed_before: Option<u64>,
    /// At most so many, up to 1000; 50 if absent. Of lists only.
    limit: Option<u32>,
    /// `next` of the page before; the filters must be the same. Of lists only.
    cursor: Option<String>,
    /// `status` or `workflow`: count apart. Of counts only.
    #[param(value_type = Option<String>)]
    group: Option<By>,
}

/// What the query may have several times.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "it is read by `Tagged`, and stands here for the document"
)]
struct TagQuery {
    /// `name=value`, or `name` if any value will do.
    label: Option<Vec<String>>,
    /// `name`, or name, operator and value: `amount>=100`. Operators are `=`, `!=`, `<`,
    /// `<=`, `>`, `>=`.
    attribute: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum By {
    Status,
    Workflow,
}

/// A query, with its conditions on tags.
struct Tagged {
    query: FilterQuery,
    tags: Vec<TagTest>,
}

impl<S: Sync> FromRequestParts<S> for Tagged {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let is_tag = |part: &&str| {
            let name = part.split_once('=').map_or(*part, |(name, _)| name);
            matches!(name, "label" | "attribute")
        };
        let (tags, others): (Vec<_>, Vec<_>) = query.split('&').partition(is_tag);
        let mut apart = parts.clone();
        let of = |parts: &[&str]| -> Result<Uri, Problem> {
            format!("/?{}", parts.join("&"))
                .parse()
                .map_err(|_| refuse("the query cannot be read".to_owned()))
        };
        apart.uri = of(&others)?;
        let Query(query) = Query::from_request_parts(&mut apart, state).await?;
        apart.uri = of(&tags)?;
        let Query(tags) =
            Query::<Vec<(String, String)>>::from_request_parts(&mut apart, state).await?;
        if tags.len() > MAX_TAG_TESTS {
            let count = tags.len();
            let detail = format!(
                "a list takes at most {MAX_TAG_TESTS} `label` and `attribute` together, not {count}"
            );
            return Err(refuse(detail));
        }
        let tags = tags.iter().map(|(kind, text)| test(kind, text));
        let tags = tags.collect::<Result<_, _>>()?;
        Ok(Self { query, tags })
    }
}

/// One condition.
fn test(kind: &str, text: &str) -> Result<TagTest, Problem> {
    let read = if kind == "label" {
        label_test(text)
    } else {
        attribute_test(text)
    };
    read.map_err(|why| refuse(format!("`{kind}={text}`: {why}")))
}

fn refuse(detail: String) -> Problem {
    Problem::new(Code::InvalidRequest, detail)
}

fn label_test(text: &str) -> Result<TagTest, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if !is_label_name(name) {
        return Err(
            "before the `=` has to be the name of a label, of letters, digits and `-_./`"
                .to_owned(),
        );
    }
    let name = name.to_owned();
    Ok(TagTest::Label { name, value })
}

fn attribute_test(text: &str) -> Result<TagTest, String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if !is_attribute_name(name) {
        return Err("at its start has to be the name of an attribute, as in `amount>=100`".into());
    }
    let name = name.to_owned();
    if rest.is_empty() {
        return Ok(TagTest::Attribute { name, is: None });
    }
    let operators = [
        ("!=", Operator::Unequal),
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("=", Operator::Equal),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let found = operators
        .into_iter()
        .find_map(|(sign, operator)| Some((operator, rest.strip_prefix(sign)?)));
    let Some((operator, value)) = found else {
        let place = end + 1;
        return Err(format!(
            "at character {place} has to be `=`, `!=`, `<`, `<=`, `>` or `>=`"
        ));
    };
    let place = text.len() - value.len() + 1;
    let value = scalar(value).map_err(|why| format!("at character {place} {why}"))?;
    let ordered = !matches!(operator, Operator::Equal | Operator::Unequal);
    if ordered && matches!(value, Scalar::Bool(_)) {
        return Err(format!(
            "at character {place} is a boolean, which is neither less nor greater than another; \
             ask for `=` or `!=`"
        ));
    }
    let is = Some((operator, value));
    Ok(TagTest::Attribute { name, is })
}

/// A value as it is written in a condition: a number, a boolean, a time, or text, which may be
/// quoted to be nothing else.
fn scalar(text: &str) -> Result<Scalar, String> {
    let value = if text.starts_with('"') {
        serde_json::from_str::<String>(text)
            .map(Value::from)
            .map_err(|error| format!("is no text in quotes: {error}"))?
    } else {
        let plain = serde_json::from_str::<Value>(text).ok();
        let plain = plain.filter(|value| value.is_number() || value.is_boolean());
        plain.unwrap_or_else(|| Value::from(text))
    };
    Scalar::of(&value).ok_or_else(|| "is longer than any attribute".to_owned())
}

impl Tagged {
    fn filter(&mut self) -> Filter {
        let query = &mut self.query;
        Filter {
            application: query.application.take(),
            workflow: query.workflow.take(),
            shard_key: query.shard_key.take(),
            status: query.status,
            open: false,
            started_after: query.started_after.map(Timestamp),
            started_before: query.started_before.map(Timestamp),
            closed_after: query.closed_after.map(Timestamp),
            closed_before: query.closed_before.map(Timestamp),
            tags: std::mem::take(&mut self.tags),
        }
    }
}

/// List executions, those started last first
///
/// All filters have to hold. With `closed_after`, what was started more than a minute before
/// that comes last, in the order of ends. A page looks at 2,000 to 10,000 executions at
/// most: one that finds fewer than `limit` among them is short, or empty, and has a `next`.
#[utoipa::path(
    get, path = "/v1/executions", tag = "executions",
    params(FilterQuery, TagQuery),
    responses(
        (status = 200, body = ExecutionPage),
        (status = 400, description = "`invalid_cursor`, `invalid_request`", body = ProblemDocument),
    )
)]
async fn list(
    caller: Caller<Viewer>,
    reads: Reads,
    mut tagged: Tagged,
) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    let filter = tagged.filter();
    let query = tagged.query;
    if query.group.is_some() {
        return Err(refuse("`group` is of counts, not of lists".to_owned()));
    }
    let limit = list::limit(query.limit, DEFAULT_PAGE, MAX_PAGE)?;
    let before = match &query.cursor {
        Some(cursor) => Some(list::read_cursor(cursor, tenant, &filter)?),
        None => None,
    };
    let page = reads.list(tenant, &filter, before, limit).await?;
    let next = page
        .next
        .map(|next| list::write_cursor(next, tenant, &filter));
    let items = page
        .items
        .into_iter()
        .map(ExecutionView::of_summary)
        .collect();
    Ok(reads.mark(json(StatusCode::OK, &ExecutionPage { items, next })))
}

/// Count executions
///
/// The filters are those of the list. Exact if at most 10,000 executions have to be looked at;
/// else of the newest so many, with `at_least`.
#[utoipa::path(
    get, path = "/v1/executions/count", tag = "executions",
    params(FilterQuery, TagQuery),
    responses(
        (status = 200, body = Counted),
        (status = 400, description = "`invalid_request`", body = ProblemDocument),
    )
)]
async fn count(
    caller: Caller<Viewer>,
    reads: Reads,
    mut tagged: Tagged,
) -> Result<Response, Problem> {
    let filter = tagged.filter();
    let query = tagged.query;
    if query.limit.is_some() || query.cursor.is_some() {
        let detail = "`limit` and `cursor` are of lists, not of counts";
        return Err(refuse(detail.to_owned()));
    }
    let counts = reads.count(&caller.tenant.id, &filter).await?;
    Ok(reads.mark(json(StatusCode::OK, &Counted::new(&counts, query.group))))
}

impl Counted {
    fn new(counts: &Counts, by: Option<By>) -> Self {
        let groups = by.map(|by| {
            let mut groups = Vec::<Group>::new();
            for group in &counts.groups {
                let named = by == By::Workflow;
                let application = named.then(|| group.application.clone());
                let workflow = named.then(|| group.workflow.clone());
                let status = (by == By::Status).then_some(group.status);
                let same = |known: &&mut Group| {
                    (&known.application, &known.workflow, known.status)
                        == (&application, &workflow, status)
                };
                match groups.iter_mut().find(same) {
                    Some(known) => known.count += group.executions,
                    None => groups.push(Group {
                        application,
                        workflow,
                        status,
                        count: group.executions,
                    }),
                }
            }
            groups
        });
        Self {
            count: counts.groups.iter().map(|group| group.executions).sum(),
            at_least: counts.at_least,
            groups,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(text: &str) -> Result<(Operator, Scalar), String> {
        match attribute_test(text)? {
            TagTest::Attribute { is: Some(is), .. } => Ok(is),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_condition_is_a_name_an_operator_and_a_value_of_some_type() {
        let text = |text: &str| Scalar::Text(text.to_owned());
        let number = |number: i64| Scalar::Number(number.into());
        for (given, expected) in [
            ("a=1", (Operator::Equal, number(1))),
            ("a!=-1", (Operator::Unequal, number(-1))),
            ("a<1", (Operator::Less, number(1))),
            ("a<=1", (Operator::AtMost, number(1))),
            ("a>1", (Operator::Greater, number(1))),
            ("a>=1", (Operator::AtLeast, number(1))),
            ("a=gold", (Operator::Equal, text("gold"))),
            ("a=\"1\"", (Operator::Equal, text("1"))),
            ("a=\"true\"", (Operator::Equal, text("true"))),
            ("a=", (Operator::Equal, text(""))),
            ("a==b", (Operator::Equal, text("=b"))),
            ("a=true", (Operator::Equal, Scalar::Bool(true))),
            ("a=null", (Operator::Equal, text("null"))),
            (
                "a>1970-01-01T00:00:01Z",
                (Operator::Greater, Scalar::Time(Timestamp(1_000))),
            ),
        ] {
            assert_eq!(attribute(given), Ok(expected), "{given}");
        }
        let there = attribute_test("amount");
        assert!(matches!(there, Ok(TagTest::Attribute { is: None, .. })));
    }

    #[test]
    fn what_is_no_condition_is_refused_with_its_place() {
        for (given, why) in [
            ("", "at its start"),
            ("1a=1", "at its start"),
            (">=1", "at its start"),
            ("amount 1", "at character 7"),
            ("amount~1", "at character 7"),
            ("a=\"x", "at character 3 is no text in quotes"),
            ("ok>true", "at character 4 is a boolean"),
            (
                &format!("a={}", "x".repeat(257)),
                "at character 3 is longer",
            ),
        ] {
            let problem = attribute_test(given).expect_err(given);
            assert!(problem.contains(why), "{given}: {problem}");
        }
        for given in ["", "=v", "a b=c", "ä"] {
            assert!(label_test(given).is_err(), "{given}");
        }
    }
}
