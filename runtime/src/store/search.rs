//! How executions are found: which index a filter goes by, and in which statements.
//!
//! A list is in the order of starts, the newest first, and goes on after the [`ListCursor`] of its
//! last row: it never changes of a row, so a page neither repeats nor skips one that was there
//! throughout, whatever is written meanwhile. One of what has ended after some time has two
//! parts: what was started after that (less [`LONG_MS`]) in the order of starts, then what was
//! started before in the order of ends.
//!
//! One index gives the candidates of a page in that order, by what the filter says that
//! holds for the fewest; what it cannot say is asked of each. A page looks at some of them
//! first ([`GLANCE`]), which is enough where many fit, then at [`SCAN_ROWS`] or
//! [`LOOKUP_ROWS`], and comes back short if it must, so that nothing that can be asked for
//! takes longer than some tens of milliseconds.
//!
//! The texts are made of the constants in here, for both databases: they differ in how
//! places for values are written, and in how a row is found by its tags. Tags are kept
//! twice: as a whole with their execution, to be shown, and each by its name and value, to
//! be searched. Values are kept as bytes whose order is theirs ([`Span`]).

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use cascade_cdl::tags::Scalar;
use cascade_cdl::{Tags, Timestamp};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::{Commit, StatusName, Summary, codec};

/// Candidates that one page looks at, where they lie side by side and the index does not say
/// all. This bounds it to some 10 ms, and the page comes back short.
pub(super) const SCAN_ROWS: i64 = 10_000;

/// The same where each lies somewhere else, or something has to be looked up for it: up to
/// 20 µs each if its part of the table is not in the database's own memory.
const LOOKUP_ROWS: i64 = 2_000;

/// What takes so long is in an index by its end. All else pays nothing for it: what has ended
/// after some time was started a minute before that, at the earliest.
const LONG_MS: u64 = 60_000;

/// What is looked at first, in pages: where a quarter fits, a page is full after these.
const GLANCE: i64 = 4;

/// Executions that a count looks at: it is exact up to this, which takes a tenth of a
/// second at worst, and says "at least" beyond.
pub const COUNT_ROWS: u32 = 10_000;

/// Most conditions on tags of one list: each is looked up for each candidate.
pub const MAX_TAG_TESTS: usize = 8;

/// What a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub application: Option<String>,
    pub workflow: Option<String>,
    /// Only what is placed by this key.
    pub shard_key: Option<String>,
    pub status: Option<StatusName>,
    /// Only what has not ended, whether it is paused or not.
    pub open: bool,
    pub started_after: Option<Timestamp>,
    pub started_before: Option<Timestamp>,
    pub closed_after: Option<Timestamp>,
    pub closed_before: Option<Timestamp>,
    /// All of them have to hold.
    pub tags: Vec<TagTest>,
}

/// A condition on labels or attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagTest {
    /// That there is a label; with this value, if one is given.
    Label { name: String, value: Option<String> },
    /// That there is an attribute; and how it compares, if anything is given. Values of
    /// other types are unequal to it, and neither less nor greater.
    Attribute {
        name: String,
        is: Option<(Operator, Scalar)>,
    },
}

/// How an attribute compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    /// There, and not equal.
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Operator {
    /// Whether a value that compares so to the one given is meant; `None`: it is of
    /// another type.
    pub(super) fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::Unequal => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::AtMost => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::AtLeast => order.is_some_and(Ordering::is_ge),
        }
    }
}

/// Where a list goes on: after the row that has this place in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListCursor {
    /// When it was started, and `RECENT` if it is one of two parts; when it ended, if it
    /// is of the second.
    pub at: u64,
    /// Which of those it is.
    pub seq: u64,
}

impl ListCursor {
    /// Before all rows.
    const TOP: Self = Self {
        at: i64::MAX.cast_unsigned(),
        seq: i64::MAX.cast_unsigned(),
    };

    /// What places of the first of two parts have more than the time of the start, so that
    /// they are before those of the second: more than any time.
    const RECENT: u64 = 1 << 62;
}

/// How many executions there are, by what they run and how they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub groups: Vec<CountGroup>,
    /// Whether there may be more: [`COUNT_ROWS`] were looked at, the newest.
    pub at_least: bool,
}

/// Some of [`Counts`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CountGroup {
    pub application: String,
    pub workflow: String,
    pub status: StatusName,
    pub executions: u64,
}

impl Counts {
    /// Counts rows: what they run, how they stand, how many there are, how many of those
    /// were looked at.
    pub(super) fn of(rows: impl Iterator<Item = (String, String, StatusName, u64, u64)>) -> Self {
        let (mut groups, mut seen) = (Vec::<CountGroup>::new(), 0);
        for (application, workflow, status, executions, looked_at) in rows {
            seen += looked_at;
            let same = |group: &&mut CountGroup| {
                (&group.application, &group.workflow, group.status)
                    == (&application, &workflow, status)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.executions += executions,
                None if executions == 0 => {}
                None => groups.push(CountGroup {
                    application,
                    workflow,
                    status,
                    executions,
                }),
            }
        }
        groups.sort_unstable();
        let at_least = seen >= u64::from(COUNT_ROWS);
        Self { groups, at_least }
    }
}

impl Filter {
    /// Where the first of two parts ends: what has ended after some time was started after
    /// this, or took [`LONG_MS`].
    fn since(&self) -> Option<u64> {
        self.closed_after?.0.checked_sub(LONG_MS)
    }

    /// The statuses, as a row has them, and what a row of them rests in.
    fn status_codes(&self) -> (Option<i64>, Option<Range<i64>>) {
        let open = self.open.then_some(StatusName::Running);
        let rests = match self.status {
            Some(StatusName::Running) => Some(0..codec::PAUSED),
            Some(StatusName::Paused) => Some(codec::PAUSED..codec::RESTS),
            _ => None,
        };
        (self.status.or(open).map(codec::status_code), rests)
    }
}

/// What is written of an execution's tags, if they have changed.
pub(super) struct TagRow {
    /// All of them, as JSON.
    pub(super) whole: Arc<str>,
    /// Each of them, by the name that it is searched by.
    pub(super) entries: Vec<(String, Vec<u8>)>,
}

impl TagRow {
    pub(super) fn new(commit: &Commit) -> Option<Self> {
        if !commit.retag {
            return None;
        }
        let none = Tags::default();
        let tags = commit.summary.tags.as_deref().unwrap_or(&none);
        let labels = tags.labels.iter();
        let labels = labels.map(|(name, value)| (label(name), value.as_bytes().to_vec()));
        let attributes = tags.attributes.iter().filter_map(|(name, value)| {
            let value = Scalar::of(value)?;
            Some((attribute(name), sortable(&value)))
        });
        Some(Self {
            whole: codec::encode_tags(tags).into(),
            entries: labels.chain(attributes).collect(),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.iter();
        self.whole.len()
            + entries
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>()
    }
}

fn label(name: &str) -> String {
    format!("label {name}")
}

fn attribute(name: &str) -> String {
    format!("attribute {name}")
}

/// Bytes whose order is that of the values of one type; those of different types are
/// apart.
fn sortable(value: &Scalar) -> Vec<u8> {
    let mut bytes = vec![type_code(value)];
    match value {
        Scalar::Text(text) => bytes.extend(text.as_bytes()),
        Scalar::Number(number) => {
            // The nearest that has 64 bits, then how far an integer is from that.
            let near = number.as_f64().unwrap_or(f64::MAX) + 0.0; // -0 is 0
            let bits = near.to_bits();
            let ordered = if near.is_sign_negative() {
                !bits
            } else {
                bits | (1 << 63)
            };
            bytes.extend(ordered.to_be_bytes());
            let exact = number.as_i128();
            // Below 2^64 it is 1,024 at most, and such floats are integers.
            #[expect(clippy::cast_possible_truncation, reason = "`near` is that of an i128")]
            let apart = exact.map_or(0, |exact| exact - near as i128);
            let apart = i16::try_from(apart).unwrap_or(0);
            bytes.extend((apart.cast_unsigned() ^ (1 << 15)).to_be_bytes());
        }
        Scalar::Bool(it) => bytes.push(u8::from(*it)),
        Scalar::Time(at) => bytes.extend(at.0.to_be_bytes()),
    }
    bytes
}

/// Name and value as one, which PostgreSQL's index has: names have no character 0, so it is
/// in the order of values among those of one name.
pub(super) fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), &[0], value].concat()
}

fn type_code(value: &Scalar) -> u8 {
    match value {
        Scalar::Text(_) => 1,
        Scalar::Number(_) => 2,
        Scalar::Bool(_) => 3,
        Scalar::Time(_) => 4,
    }
}

/// The values that a tag may have: all from one up to another.
struct Span {
    name: String,
    values: Range<Vec<u8>>,
    /// That it is one value.
    is_one: bool,
    /// That it may be there with any other value.
    but: bool,
}

impl Span {
    fn of(test: &TagTest) -> Self {
        match test {
            TagTest::Label { name, value } => {
                let value = value.as_deref().map(|value| value.as_bytes().to_vec());
                Self::new(label(name), value.map_or(everything(), one))
            }
            TagTest::Attribute { name, is: None } => Self::new(attribute(name), everything()),
            TagTest::Attribute {
                name,
                is: Some((operator, value)),
            } => {
                let least = vec![type_code(value)];
                let end = vec![type_code(value) + 1];
                let Range { start, end: after } = one(sortable(value));
                let values = match operator {
                    Operator::Equal | Operator::Unequal => start..after,
                    Operator::Less => least..start,
                    Operator::AtMost => least..after,
                    Operator::Greater => after..end,
                    Operator::AtLeast => start..end,
                };
                let but = *operator == Operator::Unequal;
                Self {
                    but,
                    is_one: *operator == Operator::Equal,
                    ..Self::new(attribute(name), values)
                }
            }
        }
    }

    fn new(name: String, values: Range<Vec<u8>>) -> Self {
        let mut after = values.start.clone();
        after.push(0);
        Self {
            name,
            is_one: after == values.end,
            values,
            but: false,
        }
    }
}

/// From one value to the next that there could be.
fn one(value: Vec<u8>) -> Range<Vec<u8>> {
    let mut next = value.clone();
    next.push(0);
    value..next
}

/// No value of a tag begins with this byte: it is in no UTF-8.
fn everything() -> Range<Vec<u8>> {
    Vec::new()..vec![0xff]
}

/// By what the candidates of a page are found.
enum Driver<'f> {
    /// A tag with one value, or with one of some values.
    Tag(Span, usize),
    ShardKey(&'f str),
    /// Other than completed.
    Status(i64),
    Workflow(&'f str),
    All,
    /// What took long, in the order of ends.
    Long,
}

impl<'f> Driver<'f> {
    /// What holds for the fewest, as far as one can know.
    fn of(filter: &'f Filter) -> Self {
        let spans = || filter.tags.iter().map(Span::of).zip(0..);
        let (status, _) = filter.status_codes();
        let completed = codec::status_code(StatusName::Completed);
        if let Some((span, at)) = spans().find(|(span, _)| span.is_one) {
            Self::Tag(span, at)
        } else if let Some(key) = &filter.shard_key {
            Self::ShardKey(key)
        } else if let Some(status) = status.filter(|status| *status != completed) {
            Self::Status(status)
        } else if let Some((span, at)) = spans().next() {
            Self::Tag(span, at)
        } else if let Some(workflow) = &filter.workflow {
            Self::Workflow(workflow)
        } else {
            Self::All
        }
    }

    fn index(&self) -> &'static str {
        match self {
            Self::Tag(span, _) if span.is_one => "execution_tags_by_value",
            Self::Tag(..) => "execution_tags_by_name",
            Self::ShardKey(_) => "executions_by_key",
            Self::Status(_) => "executions_by_status_start",
            Self::Workflow(_) => "executions_by_workflow",
            Self::All => "executions_by_start",
            Self::Long => "executions_long_by_end",
        }
    }

    /// The columns of the order.
    fn order(&self) -> (&'static str, &'static str) {
        match self {
            Self::Tag(..) => ("t.started_at", "t.seq"),
            Self::Long => ("e.closed_at", "e.seq"),
            _ => ("e.started_at", "e.seq"),
        }
    }

    /// Which of the values that the driver finds are meant.
    fn own_values(&self, text: &mut Text) {
        if let Self::Tag(span, _) = self
            && !span.is_one
            && span.values != everything()
        {
            text.push(" AND ");
            text.within("t", span);
        }
    }
}

/// Which database a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// A value for a place of a statement.
#[derive(Debug, Clone)]
pub(super) enum Bind {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A statement with its values.
pub(super) struct Statement {
    pub(super) sql: SqlStr,
    pub(super) values: Vec<Bind>,
}

/// What a page or a count is asked with.
pub(super) struct Search<'f> {
    tenant: &'f str,
    filter: &'f Filter,
    driver: Driver<'f>,
    /// In the driver's own order.
    before: Option<ListCursor>,
    dialect: Dialect,
}

impl<'f> Search<'f> {
    /// What comes after a place.
    pub(super) fn new(
        tenant: &'f str,
        filter: &'f Filter,
        before: Option<ListCursor>,
        dialect: Dialect,
    ) -> Self {
        let is_second = before.is_some_and(|before| before.at < ListCursor::RECENT);
        let driver = match filter.since() {
            Some(_) if is_second => Driver::Long,
            _ => Driver::of(filter),
        };
        let mut search = Self {
            tenant,
            filter,
            driver,
            before,
            dialect,
        };
        let lead = search.lead();
        search.before = before.map(|ListCursor { at, seq }| ListCursor { at: at - lead, seq });
        search
    }

    /// What places have more than the order of the driver.
    fn lead(&self) -> u64 {
        match (self.filter.since(), &self.driver) {
            (None, _) | (Some(_), Driver::Long) => 0,
            (Some(_), _) => ListCursor::RECENT,
        }
    }

    /// The place in the list of what has this place in the order of the driver.
    pub(super) fn place(&self, ListCursor { at, seq }: ListCursor) -> ListCursor {
        let at = at + self.lead();
        ListCursor { at, seq }
    }

    /// Where the list goes on after the last row that the driver gives, if it does.
    pub(super) fn rest(&self) -> Option<ListCursor> {
        let since = self.filter.since()?;
        let is_empty = |after: Timestamp| after.0 >= since;
        if matches!(self.driver, Driver::Long) || self.filter.started_after.is_some_and(is_empty) {
            return None;
        }
        Some(ListCursor {
            at: ListCursor::RECENT - 1,
            ..ListCursor::TOP
        })
    }

    /// Where the candidates of a page end: a statement for the first try, and for the second
    /// if the first has not filled it. Each gives one row, or none if there are fewer
    /// candidates. Nothing, once, where no row is passed over, so that the limit is enough.
    pub(super) fn floors(&self, limit: u32) -> Vec<Option<Statement>> {
        let driver = &self.driver;
        let mut own = Text::new(self.dialect);
        driver.own_values(&mut own);
        let mut others = Text::new(self.dialect);
        self.others(&mut others, driver);
        let scan = match driver {
            _ if own.sql.is_empty() && others.sql.is_empty() => return vec![None],
            Driver::All => SCAN_ROWS,
            Driver::Tag(..) if others.sql.is_empty() => SCAN_ROWS,
            _ => LOOKUP_ROWS,
        };
        let glance = GLANCE * i64::from(limit);
        let tries = [glance, scan].into_iter().filter(|rows| *rows <= scan);
        tries.map(|rows| Some(self.floor(driver, rows))).collect()
    }

    /// The place of the last of so many candidates.
    fn floor(&self, driver: &Driver<'_>, rows: i64) -> Statement {
        let mut text = Text::new(self.dialect);
        let (at, seq) = driver.order();
        write(&mut text.sql, format_args!("SELECT {at}, {seq}"));
        self.candidates(&mut text, driver, None, false);
        text.newest_first(driver, 1);
        text.push(" OFFSET ");
        text.int(rows - 1);
        text.done()
    }

    /// A page: `columns` of the rows, in their order. `floor` is where it ends at the latest.
    pub(super) fn page(&self, columns: &str, floor: Option<ListCursor>, limit: u32) -> Statement {
        let driver = &self.driver;
        let mut text = Text::new(self.dialect);
        write(&mut text.sql, format_args!("SELECT {columns}"));
        self.candidates(&mut text, driver, floor, true);
        self.residual(&mut text, driver);
        text.newest_first(driver, i64::from(limit));
        text.done()
    }

    /// How many of the newest [`COUNT_ROWS`] candidates fit, by what they run and how they
    /// stand: a statement for each part.
    pub(super) fn counts(tenant: &str, filter: &Filter, dialect: Dialect) -> Vec<Statement> {
        let first = Search::new(tenant, filter, None, dialect);
        let rest = first.rest();
        let rest = rest.map(|rest| Search::new(tenant, filter, Some(rest), dialect).count());
        [first.count()].into_iter().chain(rest).collect()
    }

    /// The same, of one part.
    pub(super) fn count(&self) -> Statement {
        let driver = &self.driver;
        let mut text = Text::new(self.dialect);
        text.push(
            "SELECT application, workflow, status, idle, count(*) FILTER (WHERE fits), count(*) \
             FROM (SELECT e.application, e.workflow, e.status, e.idle, (TRUE",
        );
        self.residual(&mut text, driver);
        text.push(") AS fits");
        self.candidates(&mut text, driver, None, true);
        text.newest_first(driver, i64::from(COUNT_ROWS));
        text.push(") AS newest GROUP BY application, workflow, status, idle");
        text.done()
    }

    /// The rows that the index of the driver gives; those of tags with their executions if
    /// `whole`.
    fn candidates(
        &self,
        text: &mut Text,
        driver: &Driver<'_>,
        floor: Option<ListCursor>,
        whole: bool,
    ) {
        let hint = match self.dialect {
            Dialect::Sqlite => format!(" INDEXED BY {}", driver.index()),
            Dialect::Postgres => String::new(),
        };
        let of = match driver {
            Driver::Tag(..) => "t",
            _ => "e",
        };
        let table = match driver {
            Driver::Tag(..) => "execution_tags",
            _ => "executions",
        };
        write(&mut text.sql, format_args!(" FROM {table} AS {of}{hint}"));
        if whole && of == "t" {
            // `CROSS`, and the sum of texts, keep the planners from going the other way.
            text.push(match self.dialect {
                Dialect::Sqlite => " CROSS JOIN executions AS e ON e.seq = t.seq",
                Dialect::Postgres => {
                    " JOIN executions AS e ON e.id = t.id AND e.tenant || '' = t.tenant"
                }
            });
        }
        write(&mut text.sql, format_args!(" WHERE {of}.tenant = "));
        text.text(self.tenant);
        self.driven(text, driver);
        let (at, seq) = driver.order();
        for (
            operator,
            ListCursor {
                at: time,
                seq: number,
            },
        ) in self.bounds(driver, floor)
        {
            write(
                &mut text.sql,
                format_args!(" AND ({at}, {seq}) {operator} ("),
            );
            text.int(codec::to_i64(time));
            text.push(", ");
            text.int(codec::to_i64(number));
            text.push(")");
        }
    }

    fn driven(&self, text: &mut Text, driver: &Driver<'_>) {
        match driver {
            Driver::Tag(span, _) => {
                match (self.dialect, span.is_one) {
                    // As one index has it, and no other.
                    (Dialect::Postgres, true) => {
                        text.push(" AND t.entry = ");
                        text.bytes(&entry(&span.name, &span.values.start));
                    }
                    (Dialect::Sqlite, true) => {
                        text.push(" AND t.name = ");
                        text.text(&span.name);
                        text.push(" AND t.value = ");
                        text.bytes(&span.values.start);
                    }
                    (_, false) => {
                        text.push(" AND t.name = ");
                        text.text(&span.name);
                    }
                }
            }
            Driver::ShardKey(key) => {
                text.push(" AND e.shard_key = ");
                match self.dialect {
                    Dialect::Sqlite => text.text(key),
                    Dialect::Postgres => text.bytes(key.as_bytes()),
                }
            }
            Driver::Status(status) => {
                text.push(" AND e.status = ");
                text.int(*status);
                text.push(" AND e.status <> 1");
            }
            Driver::Workflow(workflow) => {
                text.push(" AND e.workflow = ");
                text.text(workflow);
            }
            Driver::All => {}
            Driver::Long => write(
                &mut text.sql,
                format_args!(" AND e.closed_at - e.started_at >= {LONG_MS}"),
            ),
        }
    }

    /// From where to where in the order: not before, and from.
    fn bounds(
        &self,
        driver: &Driver<'_>,
        floor: Option<ListCursor>,
    ) -> [(&'static str, ListCursor); 2] {
        let filter = self.filter;
        let (after, before) = match driver {
            Driver::Long => (filter.closed_after, filter.closed_before),
            _ => (
                filter.started_after.max(filter.since().map(Timestamp)),
                // Nothing ends before it has started.
                [filter.started_before, filter.closed_before]
                    .into_iter()
                    .flatten()
                    .min(),
            ),
        };
        let edge = |at: u64| ListCursor { at, seq: 0 };
        let before = before.map(|Timestamp(at)| edge(at));
        let after = after.map(|Timestamp(at)| edge(at.saturating_add(1)));
        let upper = [before, self.before].into_iter().flatten().min();
        let lower = [after, floor].into_iter().flatten().max();
        [
            ("<", upper.unwrap_or(ListCursor::TOP)),
            (">=", lower.unwrap_or(edge(0))),
        ]
    }

    /// What the driver does not say.
    fn residual(&self, text: &mut Text, driver: &Driver<'_>) {
        driver.own_values(text);
        self.others(text, driver);
    }

    /// What is asked beside what the driver goes by. In sums, which are in no index: a
    /// planner that knows little of a table would go by another one, and sort.
    fn others(&self, text: &mut Text, driver: &Driver<'_>) {
        let filter = self.filter;
        if let Some(application) = &filter.application {
            text.push(" AND e.application = ");
            text.text(application);
        }
        if let (Some(workflow), false) = (&filter.workflow, matches!(driver, Driver::Workflow(_))) {
            text.push(" AND e.workflow || '' = ");
            text.text(workflow);
        }
        if let (Some(key), false) = (&filter.shard_key, matches!(driver, Driver::ShardKey(_))) {
            text.push(" AND e.shard_key || '' = ");
            match self.dialect {
                Dialect::Sqlite => text.text(key),
                Dialect::Postgres => text.bytes(key.as_bytes()),
            }
        }
        let (status, rests) = filter.status_codes();
        if let (Some(status), false) = (status, matches!(driver, Driver::Status(_))) {
            text.push(" AND e.status + 0 = ");
            text.int(status);
        }
        if let Some(rests) = rests {
            text.push(" AND e.idle >= ");
            text.int(rests.start);
            text.push(" AND e.idle < ");
            text.int(rests.end);
        }
        self.times(text, driver);
        self.tags(text, driver);
    }

    fn times(&self, text: &mut Text, driver: &Driver<'_>) {
        let filter = self.filter;
        let times = if matches!(driver, Driver::Long) {
            [
                (" AND e.started_at + 0 > ", filter.started_after),
                (" AND e.started_at + 0 < ", filter.started_before),
                (" AND e.started_at + 0 <= ", filter.since().map(Timestamp)),
            ]
        } else {
            [
                (" AND e.closed_at + 0 > ", filter.closed_after),
                (" AND e.closed_at + 0 < ", filter.closed_before),
                ("", None),
            ]
        };
        for (condition, at) in times {
            if let Some(Timestamp(at)) = at {
                text.push(condition);
                text.int(codec::to_i64(at));
            }
        }
    }

    /// A value each, so that it is looked up for each row and nothing is joined.
    fn tags(&self, text: &mut Text, driver: &Driver<'_>) {
        for (at, test) in self.filter.tags.iter().enumerate() {
            if matches!(driver, Driver::Tag(_, of) if *of == at) {
                continue;
            }
            let span = Span::of(test);
            text.push(" AND (SELECT ");
            text.within("x", &span);
            text.push(match self.dialect {
                Dialect::Sqlite => {
                    " FROM execution_tags AS x \
                     WHERE x.tenant = e.tenant AND x.seq = e.seq AND x.name = "
                }
                Dialect::Postgres => {
                    " FROM execution_tags AS x WHERE x.id = e.id \
                     AND x.tenant || '' = e.tenant AND x.name || '' = "
                }
            });
            text.text(&span.name);
            text.push(")");
        }
    }
}

/// A statement being written.
struct Text {
    dialect: Dialect,
    sql: String,
    values: Vec<Bind>,
}

impl Text {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            sql: String::with_capacity(512),
            values: Vec::new(),
        }
    }

    fn push(&mut self, text: &'static str) {
        self.sql.push_str(text);
    }

    /// A place for a value.
    fn bind(&mut self, value: Bind, of: &str) {
        self.values.push(value);
        let number = self.values.len();
        match self.dialect {
            Dialect::Sqlite => write(&mut self.sql, format_args!("?{number}")),
            Dialect::Postgres => write(&mut self.sql, format_args!("${number}::{of}")),
        }
    }

    fn int(&mut self, value: i64) {
        self.bind(Bind::Int(value), "bigint");
    }

    fn text(&mut self, value: &str) {
        self.bind(Bind::Text(value.to_owned()), "text");
    }

    fn bytes(&mut self, value: &[u8]) {
        self.bind(Bind::Bytes(value.to_vec()), "bytea");
    }

    /// That a value is among those of a tag.
    fn within(&mut self, table: &str, span: &Span) {
        let Range { start, end } = &span.values;
        self.push(if span.but { "NOT (" } else { "(" });
        // The sum of bytes keeps PostgreSQL's planner from the index by values, which does
        // not give the order.
        let (column, start, end) = match self.dialect {
            Dialect::Sqlite => ("value", start.clone(), end.clone()),
            Dialect::Postgres => (
                "entry || ''",
                entry(&span.name, start),
                entry(&span.name, end),
            ),
        };
        write(&mut self.sql, format_args!("{table}.{column} >= "));
        self.bytes(&start);
        write(&mut self.sql, format_args!(" AND {table}.{column} < "));
        self.bytes(&end);
        self.push(")");
    }

    fn newest_first(&mut self, driver: &Driver<'_>, limit: i64) {
        let (at, seq) = driver.order();
        write(
            &mut self.sql,
            format_args!(" ORDER BY {at} DESC, {seq} DESC LIMIT "),
        );
        self.int(limit);
    }

    fn done(self) -> Statement {
        Statement {
            // Safe: made of the constants above only.
            sql: AssertSqlSafe(Arc::<str>::from(self.sql)).into_sql_str(),
            values: self.values,
        }
    }
}

fn write(sql: &mut String, text: std::fmt::Arguments<'_>) {
    sql.write_fmt(text)
        .expect("writing to a string does not fail");
}

/// The place of a row in the order of a list.
pub(super) fn cursor(filter: &Filter, seq: u64, summary: &Summary) -> ListCursor {
    let started = summary.started_at.0;
    let at = match filter.since() {
        None => started,
        Some(since) if started > since => ListCursor::RECENT + started,
        Some(_) => summary.closed_at.unwrap_or_default().0,
    };
    ListCursor { at, seq }
}

/// Whether an execution has what a condition asks for; as the texts above say it.
pub(super) fn fits(test: &TagTest, tags: &Tags) -> bool {
    match test {
        TagTest::Label { name, value } => tags
            .labels
            .get(name)
            .is_some_and(|found| value.as_ref().is_none_or(|value| value == found)),
        TagTest::Attribute { name, is } => {
            let found = tags.attributes.get(name).and_then(Scalar::of);
            let holds = |found: &Scalar| {
                let is = is.as_ref();
                is.is_none_or(|(operator, value)| operator.holds(found.compare(value)))
            };
            found.as_ref().is_some_and(holds)
        }
    }
}
