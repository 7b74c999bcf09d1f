//! A server of its own for each test, on the model store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cascade_cdl::TenantId;
use cascade_runtime::api::{Api, Parts, router, serve};
use cascade_runtime::catalog::Catalog;
use cascade_runtime::clock::{Clock, SystemClock};
use cascade_runtime::config::Config;
use cascade_runtime::dispatch::local::{Capacity, LocalQueue, Share};
use cascade_runtime::engine::{self, Engine};
use cascade_runtime::objects::{Objects, Quota};
use cascade_runtime::sandbox::{
    KeyValue, KeyValueError, ModuleSource, Sandbox, SandboxConfig, SourceError,
};
use cascade_runtime::schedules::Schedules;
use cascade_runtime::store::{ModelStore, Store};
use cascade_runtime::telemetry::Telemetry;
use cascade_runtime::tenancy::{Digest, Tenancy};
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that a client of these servers may take to send a request.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// Workflows without activities, so that nothing but the engine runs.
pub(crate) const CDL: &str = "
workflows:
  greet:
    states:
      - {name: Hello, type: Pass, parameters: \"{{ workflow.input.name | default: 'you' }}\", result: $.greeting, end: true}
  nap:
    states:
      - {name: Sleep, type: Wait, duration: 1h, end: true}
  break:
    states:
      - {name: Snap, type: Fail, error: Snapped, message: as expected}
";

/// A server, and a client to it.
pub(crate) struct Server {
    pub(crate) base: String,
    pub(crate) client: reqwest::Client,
    pub(crate) stopping: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    /// Its data folder.
    pub(crate) data: tempfile::TempDir,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The code of a problem document; empty if it is none.
    pub(crate) fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    /// Tenants `acme`, with a key of each role, and `rival`, with the key
    /// `other`; the server's own key is `server`.
    pub(crate) async fn start() -> Self {
        let key = |id: &str, role: &str| {
            format!("{{id: {id}, role: {role}, hash: {}}}", Digest::of(&key(id)))
        };
        let keys = ["viewer", "operator", "author", "admin"].map(|role| key(role, role));
        let text = format!(
            "server: {{admin_keys: [{{id: server, hash: {}}}], request_timeout: {}ms, max_wait: 1h, module_bytes: 1MiB}}\n\
             tenants:\n\
             - {{id: acme, limits: {{input_bytes: 2000}}, keys: [{}]}}\n\
             - {{id: rival, keys: [{}]}}\n",
            Digest::of(&self::key("server")),
            REQUEST_TIMEOUT.as_millis(),
            keys.join(", "),
            key("other", "admin"),
        );
        let config = Arc::new(Config::parse("test.yaml", &text, &|_| None).unwrap());
        let store: Arc<dyn Store> = Arc::new(ModelStore::new());
        let data = tempfile::tempdir().unwrap();
        let tenancy = Tenancy::load(&config, Arc::clone(&store)).await.unwrap();
        let sandbox = sandbox(data.path(), &store);
        let catalog = Catalog::load(Arc::clone(&store), sandbox, tenancy.clone())
            .await
            .unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let folder = data.path().join("objects");
        let quota: Quota = Arc::new(|_| 100_000);
        let objects = Objects::open(&folder, Arc::clone(&store), quota).unwrap();
        let engine = Engine::open(
            engine::Settings::default(),
            Arc::clone(&store),
            Arc::new(LocalQueue::new(
                Capacity {
                    places: 10_000,
                    crowded_pace: u32::MAX,
                },
                Arc::new(|_| Share {
                    weight: 1,
                    concurrent_attempts: 1,
                    fuel_per_second: 1,
                }),
            )),
            Arc::clone(&clock),
            Arc::new(catalog.clone()),
            objects.clone(),
        );
        let stopping = CancellationToken::new();
        let engine = engine.await.unwrap();
        let schedules = Schedules::open(
            engine.clone(),
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::new(Vec::new),
        );
        let api = Api::new(Parts {
            engine,
            catalog,
            schedules: schedules.await.unwrap(),
            tenancy,
            store,
            objects,
            clock,
            config: Arc::clone(&config),
            telemetry: Telemetry::install(),
            stopping: stopping.clone(),
            link: None,
            tokens: None,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = stopping.clone();
        let serving =
            tokio::spawn(async move { serve(listener, router(api), &config.server, stop).await });
        // Fails only if another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            base,
            client,
            stopping,
            serving,
            data,
        }
    }

    /// A request with a key.
    pub(crate) fn request(&self, key_id: &str, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        request.bearer_auth(key(key_id))
    }

    pub(crate) async fn get(&self, key_id: &str, path: &str) -> Answer {
        answer(self.request(key_id, Method::GET, path)).await
    }

    pub(crate) async fn post(&self, key_id: &str, path: &str, body: &Value) -> Answer {
        answer(self.request(key_id, Method::POST, path).json(body)).await
    }

    /// Applies [`CDL`] as `app`.
    pub(crate) async fn apply(&self) -> Answer {
        let request = self.request("author", Method::PUT, "/v1/applications/app");
        answer(request.body(CDL)).await
    }

    /// Starts a workflow of [`CDL`] and waits for its end; returns its id.
    pub(crate) async fn run(&self, workflow: &str) -> String {
        let body = json!({ "application": "app", "workflow": workflow });
        let answer = self.post("operator", "/v1/executions?wait=5s", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// Starts a workflow that does not end by itself; returns its id.
    pub(crate) async fn nap(&self) -> String {
        let body = json!({ "application": "app", "workflow": "nap" });
        let answer = self.post("operator", "/v1/executions", &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

/// The key with an id. Only tests know it, so it need not be random.
pub(crate) fn key(id: &str) -> String {
    format!("ck_{id}_{}", "0".repeat(40))
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status(),
        headers: response.headers().clone(),
        text: response.text().await.unwrap(),
    }
}

fn sandbox(data: &Path, store: &Arc<dyn Store>) -> Sandbox {
    Sandbox::new(SandboxConfig {
        data_dir: data.to_owned(),
        compiler: env!("CARGO_BIN_EXE_cascade").into(),
        slots: 10,
        source: Arc::new(StoreModules(Arc::clone(store))),
        key_value: Arc::new(NoValues),
        now_ms: Arc::new(|| 0),
    })
    .unwrap()
}

struct StoreModules(Arc<dyn Store>);

#[async_trait]
impl ModuleSource for StoreModules {
    async fn load(&self, tenant: &TenantId, digest: &str) -> Result<Option<Bytes>, SourceError> {
        Ok(self.0.module(tenant, digest).await?)
    }
}

/// No activity runs here.
struct NoValues;

fn none<T>() -> Result<T, KeyValueError> {
    Err(KeyValueError::Unavailable("not in these tests".to_owned()))
}

#[async_trait]
impl KeyValue for NoValues {
    async fn get(&self, _: &TenantId, _: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        none()
    }

    async fn set(&self, _: &TenantId, _: &str, _: Vec<u8>) -> Result<(), KeyValueError> {
        none()
    }

    async fn compare_and_set(
        &self,
        _: &TenantId,
        _: &str,
        _: Option<Vec<u8>>,
        _: Vec<u8>,
    ) -> Result<bool, KeyValueError> {
        none()
    }

    async fn delete(&self, _: &TenantId, _: &str) -> Result<(), KeyValueError> {
        none()
    }
}
