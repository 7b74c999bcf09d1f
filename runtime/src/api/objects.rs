//! `/v1/objects`: inputs and results of Maps. Contents stream in and out; no more than a
//! block of one is in memory.

use std::io::Read;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cascade_cdl::Timestamp;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::position::Reads;
use super::problem::{Code, Problem, ProblemDocument};
use super::request::{Author, Caller, Path, Query, Viewer, header};
use super::{ApiState, json, list};
use crate::objects::{self, Content};
use crate::places::Place;
use crate::store::{Object, PAGE_ITEMS};

/// What is read of a content at a time.
const BLOCK: usize = 64 << 10;

/// Objects of a page of a list, if nobody says.
const PAGE: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list_objects))
        .routes(routes!(read, write, delete))
}

/// An object.
#[derive(Serialize, ToSchema)]
struct ObjectView {
    bucket: String,
    key: String,
    /// Length of the content, in bytes.
    size: u64,
    /// SHA-256 of the content, in hexadecimal; the `ETag` in quotes.
    digest: String,
    #[schema(value_type = u64)]
    created_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
struct ObjectList {
    /// In the order of keys.
    items: Vec<ObjectView>,
    /// The `after` of the next page; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listed {
    /// What keys begin with.
    prefix: Option<String>,
    /// Objects after this key; the `next` of a page.
    after: Option<String>,
    /// How many, 1 to 1000; 100 if not given.
    limit: Option<u32>,
}

/// List the objects of a bucket
#[utoipa::path(
    get, path = "/v1/objects/{bucket}", tag = "objects",
    params(("bucket" = String, Path, description = "The bucket's name"), Listed),
    responses((status = 200, body = ObjectList))
)]
async fn list_objects(
    caller: Caller<Viewer>,
    reads: Reads,
    Path(bucket): Path<String>,
    Query(query): Query<Listed>,
) -> Result<Response, Problem> {
    objects::check_bucket(&bucket)?;
    let limit = list::limit(query.limit, PAGE, PAGE_ITEMS)?;
    let (prefix, after) = (
        query.prefix.unwrap_or_default(),
        query.after.unwrap_or_default(),
    );
    let tenant = &caller.tenant.id;
    let page = reads
        .objects(tenant, &bucket, &prefix, &after, limit)
        .await?;
    let is_full = page.len() as u64 >= u64::from(limit);
    let last = page.last().map(|object| object.name.key.clone());
    let answer = ObjectList {
        items: page.into_iter().map(view).collect(),
        next: last.filter(|_| is_full),
    };
    Ok(reads.mark(json(StatusCode::OK, &answer)))
}

/// Read an object
///
/// `HEAD` tells size and `ETag` alone. With `If-None-Match` and the `ETag`, the answer
/// is 304 if the content is that still.
#[utoipa::path(
    get, path = "/v1/objects/{bucket}/{*key}", tag = "objects",
    params(("bucket" = String, Path, description = "The bucket's name"),
        ("key" = String, Path, description = "The key, which may have slashes")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The content is that of `If-None-Match`"),
        (status = 404, description = "`not_found`", body = ProblemDocument),
        (status = 429, description = "`busy`: too many objects at a time", body = ProblemDocument),
    )
)]
async fn read(
    State(state): State<ApiState>,
    caller: Caller<Viewer>,
    Path((bucket, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    let name = objects::name(&bucket, &key)?;
    let missing = || Problem::not_found("object");
    // First, or what the row names could be replaced, and gone, while a place is waited for.
    let place = state.transfers.take_within(tenant, super::PATIENCE).await;
    let place = place.ok_or_else(too_many)?;
    let found = state.objects.find(tenant, &name).await?;
    let (object, found) = found.ok_or_else(missing)?;
    let etag = format!("\"{}\"", object.digest);
    if header(&headers, IF_NONE_MATCH.as_str())? == Some(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, plain(&etag))]).into_response());
    }
    let found = found.ok_or_else(missing)?;
    let headers = [
        (CONTENT_TYPE, plain("application/octet-stream")),
        (CONTENT_LENGTH, HeaderValue::from(object.size)),
        (ETAG, plain(&etag)),
    ];
    Ok((headers, content(found, place)).into_response())
}

/// Write an object, or replace it
#[utoipa::path(
    put, path = "/v1/objects/{bucket}/{*key}", tag = "objects",
    params(("bucket" = String, Path, description = "The bucket's name: a-z, 0-9, `-`, `_`, `.`"),
        ("key" = String, Path, description = "The key, which may have slashes")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It is kept", body = ObjectView),
        (status = 408, description = "`request_timeout`", body = ProblemDocument),
        (status = 413, description = "`too_large`", body = ProblemDocument),
        (status = 429, description = "`limit_reached`, or `busy`: too many objects at a time", body = ProblemDocument),
    )
)]
async fn write(
    State(state): State<ApiState>,
    caller: Caller<Author>,
    Path((bucket, key)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let tenant = &caller.tenant.id;
    let name = objects::name(&bucket, &key)?;
    let place = state.transfers.take_within(tenant, super::PATIENCE).await;
    let _place = place.ok_or_else(too_many)?;
    let mut upload = state.objects.upload(tenant)?;
    let mut body: BodyDataStream = request.into_body().into_data_stream();
    // For each block: a large object takes its time, and silence does not.
    let patience = state.config.server.request_timeout;
    loop {
        let block = tokio::time::timeout(patience, body.next()).await;
        let block = block
            .map_err(|_| Problem::new(Code::RequestTimeout, "the body did not arrive in time"))?;
        match block {
            None => break,
            Some(Ok(block)) => upload.write(&block).await?,
            Some(Err(_)) => {
                let detail = "the body did not arrive";
                return Err(Problem::new(Code::InvalidRequest, detail));
            }
        }
    }
    let object = upload.finish(name, state.clock.now()).await?;
    let etag = plain(&format!("\"{}\"", object.digest));
    let mut answer = json(StatusCode::OK, &view(object));
    answer.headers_mut().insert(ETAG, etag);
    Ok(answer)
}

/// Delete an object
///
/// A Map that reads it fails at its next chunk.
#[utoipa::path(
    delete, path = "/v1/objects/{bucket}/{*key}", tag = "objects",
    params(("bucket" = String, Path, description = "The bucket's name"),
        ("key" = String, Path, description = "The key, which may have slashes")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`not_found`", body = ProblemDocument),
    )
)]
async fn delete(
    State(state): State<ApiState>,
    caller: Caller<Author>,
    Path((bucket, key)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let name = objects::name(&bucket, &key)?;
    if state.objects.delete(&caller.tenant.id, &name).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(Problem::not_found("object"))
    }
}

/// A content, block after block; the place is held until the last.
fn content(content: Content, place: Place) -> Body {
    let blocks = stream::try_unfold((content, place), |(mut content, place)| async {
        let read = tokio::task::spawn_blocking(move || {
            let mut block = vec![0; BLOCK];
            let length = content.read(&mut block)?;
            block.truncate(length);
            std::io::Result::Ok((content, block))
        });
        let (content, block) = read.await.map_err(std::io::Error::other)??;
        let next = (!block.is_empty()).then(|| (Bytes::from(block), (content, place)));
        std::io::Result::Ok(next)
    });
    Body::from_stream(blocks)
}

fn too_many() -> Problem {
    Problem::new(Code::Busy, "too many objects are read and written")
}

fn plain(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("digests and types are plain ASCII")
}

fn view(object: Object) -> ObjectView {
    ObjectView {
        bucket: object.name.bucket,
        key: object.name.key,
        size: object.size,
        digest: object.digest,
        created_at: object.created_at,
    }
}
