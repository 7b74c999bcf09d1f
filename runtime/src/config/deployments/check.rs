//! Whether what `deployments` says can be, together with the rest of the file.

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};

use super::{Autoscaling, Deployment, Deployments, Prometheus, SecretSource};
use crate::config::reader::{Path, Reader};
use crate::config::{Config, SecretRef, is_url};

/// Longest name: `-nodes` and the number of a pod are added, and a hash of ten digits.
const MAX_NAME: usize = 40;

/// Most secrets, and most variables of each: beyond any installation.
const MAX_SECRETS: usize = 64;

/// Variables that the command line reads, and the objects set: a Secret cannot.
const RESERVED: [&str; 3] = ["CASCADE_ADVERTISE", "CASCADE_CONFIG", "CASCADE_DATABASE"];

/// Folders of the container that nothing may be laid over.
const TAKEN: [&str; 3] = [Deployments::DATA_FOLDER, Deployments::CONFIG_FOLDER, "/tmp"];

impl Deployments {
    /// Where `data_dir` is in a container.
    pub const DATA_FOLDER: &'static str = "/var/lib/cascade";
    /// Where the file is.
    pub const CONFIG_FOLDER: &'static str = "/etc/cascade";

    pub(in crate::config) fn check(&self, config: &Config, reader: &mut Reader) {
        let path = Path::default().join("deployments");
        if !is_label(&self.name, MAX_NAME) || self.name.starts_with(|c: char| c.is_ascii_digit()) {
            let message = format!(
                "must be 1 to {MAX_NAME} characters of a-z, 0-9 and -, starting with a letter"
            );
            reader.problem(&path.join("name"), message);
        }
        if self
            .namespace
            .as_deref()
            .is_some_and(|name| !is_label(name, 63))
        {
            let message = "must be 1 to 63 characters of a-z, 0-9 and -".to_owned();
            reader.problem(&path.join("namespace"), message);
        }
        match &self.image {
            None => reader.missing(&path, &["image"]),
            Some(image) if !is_image(image) => {
                let message =
                    "must be the name of an image, as in `registry.example.com/cascade:0.1.0`";
                reader.problem(&path.join("image"), message.to_owned());
            }
            Some(_) => {}
        }
        for (index, name) in self.image_pull_secrets.iter().enumerate() {
            check_domain(name, &path.join("image_pull_secrets").join(index), reader);
        }
        let server = path.join("server");
        self.server.check(config, &server, reader);
        check_rest(config, reader);
        check_references(config, &self.server.secrets, reader);
    }
}

impl Deployment {
    fn check(&self, config: &Config, path: &Path, reader: &mut Reader) {
        self.check_number(config, path, reader);
        let resources = path.join("resources").join("requests");
        let (requests, limits) = (&self.resources.requests, &self.resources.limits);
        if requests.cpu.millis == 0 || limits.cpu.is_some_and(|limit| requests.cpu > limit) {
            let message = "must be more than 0, and at most what `limits` says".to_owned();
            reader.problem(&resources.join("cpu"), message);
        }
        if requests.memory == 0 || requests.memory > limits.memory {
            let message = format!(
                "must be more than 0, and at most `limits.memory`, which is {} bytes",
                limits.memory
            );
            reader.problem(&resources.join("memory"), message);
        }
        if let Some(storage) = &self.storage {
            let path = path.join("storage");
            if storage.size == 0 {
                reader.missing(&path, &["size"]);
            }
            if let Some(class) = &storage.class {
                check_domain(class, &path.join("class"), reader);
            }
        }
        if self.service.port == 0 {
            let message = "must be from 1 to 65535".to_owned();
            reader.problem(&path.join("service").join("port"), message);
        }
        if let Some(ingress) = &self.ingress {
            let path = path.join("ingress");
            if ingress.host.is_empty() {
                reader.missing(&path, &["host"]);
            } else {
                let host = ingress.host.strip_prefix("*.").unwrap_or(&ingress.host);
                check_domain(host, &path.join("host"), reader);
            }
            for (key, name) in [
                ("class", &ingress.class),
                ("tls_secret", &ingress.tls_secret),
            ] {
                if let Some(name) = name {
                    check_domain(name, &path.join(key), reader);
                }
            }
        }
        check_secrets(&self.secrets, &path.join("secrets"), reader);
    }

    /// How many there are, of which some may be away.
    fn check_number(&self, config: &Config, path: &Path, reader: &mut Reader) {
        let (bound, most) = match &self.autoscaling {
            Some(scaling) => {
                let path = path.join("autoscaling");
                scaling.check(self.replicas, &path, reader);
                (path.join("max_replicas"), scaling.max_replicas)
            }
            None => (path.join("replicas"), self.replicas),
        };
        if self.replicas == 0 {
            reader.problem(&path.join("replicas"), "must be at least 1".to_owned());
        }
        if !config.database.is_shared() {
            if most > 1 {
                let message = "several servers share a PostgreSQL, which `database` must name";
                reader.problem(&bound, message.to_owned());
            }
            if self.storage.is_none() {
                let message =
                    "`storage` is missing: without a PostgreSQL everything durable is in the pod";
                reader.problem(path, message.to_owned());
            }
        } else if most > config.cluster.shards {
            let message = format!(
                "at most one for each shard, of which there are {} (`cluster.shards`): others would have \
                 nothing to do",
                config.cluster.shards
            );
            reader.problem(&bound, message);
        }
        if self.max_unavailable == 0 || (self.replicas > 1 && self.max_unavailable >= self.replicas)
        {
            let message = "must be at least 1, and less than `replicas`".to_owned();
            reader.problem(&path.join("max_unavailable"), message);
        }
    }
}

impl Autoscaling {
    fn check(&self, replicas: u32, path: &Path, reader: &mut Reader) {
        if self.max_replicas == 0 {
            reader.missing(path, &["max_replicas"]);
        } else if self.max_replicas <= replicas {
            let message = format!("must be more than `replicas`, which is {replicas}");
            reader.problem(&path.join("max_replicas"), message);
        }
        if self.cpu.is_none() && self.memory.is_none() && self.prometheus.is_none() {
            reader.missing(path, &["cpu", "memory", "prometheus"]);
        }
        for (key, percent) in [("cpu", self.cpu), ("memory", self.memory)] {
            if percent.is_some_and(|percent| !(1..=1000).contains(&percent)) {
                let message = "must be from 1 to 1000 percent of `resources.requests`".to_owned();
                reader.problem(&path.join(key), message);
            }
        }
        if let Some(prometheus) = &self.prometheus {
            prometheus.check(&path.join("prometheus"), reader);
        }
    }
}

impl Prometheus {
    fn check(&self, path: &Path, reader: &mut Reader) {
        if self.address.is_empty() {
            reader.missing(path, &["address"]);
        } else if !is_url(&self.address) {
            let message = "must be `http://HOST:PORT` or `https://HOST:PORT`".to_owned();
            reader.problem(&path.join("address"), message);
        }
        let is_plain = |text: &str| !text.contains(['{', '}', '\n']);
        if self.selector.as_deref().is_some_and(|text| !is_plain(text)) {
            let message = "must be what stands between the braces, as in `namespace=\"workflows\"`";
            reader.problem(&path.join("selector"), message.to_owned());
        }
        if self.metrics.is_empty() {
            reader.missing(path, &["metrics"]);
        }
        if self.metrics.values().any(|enough| *enough == 0) {
            let message = "what is enough for one server must be more than 0".to_owned();
            reader.problem(&path.join("metrics"), message);
        }
    }
}

fn check_secrets(secrets: &[SecretSource], path: &Path, reader: &mut Reader) {
    if secrets.len() > MAX_SECRETS {
        reader.problem(path, format!("at most {MAX_SECRETS} secrets"));
    }
    let (mut names, mut variables, mut mounts) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (index, secret) in secrets.iter().enumerate() {
        let path = path.join(index);
        if secret.name.is_empty() {
            reader.missing(&path, &["name"]);
        } else {
            check_domain(&secret.name, &path.join("name"), reader);
            if !names.insert(&secret.name) {
                let message = format!("secret `{}` is there twice", secret.name);
                reader.problem(&path.join("name"), message);
            }
        }
        if secret.environment.is_empty() && secret.mount.is_none() {
            reader.missing(&path, &["environment", "mount"]);
        }
        if secret.environment.len() > MAX_SECRETS {
            let message = format!("at most {MAX_SECRETS} variables");
            reader.problem(&path.join("environment"), message);
        }
        for (variable, key) in &secret.environment {
            let path = path.join("environment").join(variable.as_str());
            let problem = if RESERVED.contains(&variable.as_str()) {
                let message = "this variable changes what the file says: give another one, and let the file \
                               refer to it, as in `database: { url: ${DATABASE_URL} }`";
                message.to_owned()
            } else if !is_variable(variable) {
                "a variable has letters, digits and _, no digit first".to_owned()
            } else if !variables.insert(variable) {
                format!("`{variable}` is there twice")
            } else if !is_key(key) {
                "a key of a Secret has letters, digits, -, _ and .".to_owned()
            } else {
                continue;
            };
            reader.problem(&path, problem);
        }
        if let Some(mount) = &secret.mount {
            let overlaps = |other: &FilePath| mount.starts_with(other) || other.starts_with(mount);
            let is_taken = TAKEN.iter().any(|folder| overlaps(FilePath::new(folder)));
            let mut parts = mount.components();
            if !mount.is_absolute() || parts.any(|part| part.as_os_str() == "..") {
                let message = "must be an absolute path".to_owned();
                reader.problem(&path.join("mount"), message);
            } else if is_taken || mounts.iter().any(|other: &&PathBuf| overlaps(other)) {
                let message = "must not be, hold or lie in another folder of the container";
                reader.problem(&path.join("mount"), message.to_owned());
            }
            mounts.push(mount);
        }
    }
}

/// What the rest of the file cannot say if several processes, each on a machine of its own, read it.
fn check_rest(config: &Config, reader: &mut Reader) {
    let root = Path::default();
    let listen = config.server.listen;
    if !listen.ip().is_loopback() && !listen.ip().is_unspecified() || listen.port() == 0 {
        let message = "pods have addresses of their own: leave it out, or let it be `0.0.0.0:PORT` \
                       or `[::]:PORT`";
        reader.problem(&root.join("server").join("listen"), message.to_owned());
    }
    if config.cluster.advertise.is_some() {
        let message = "each pod has an address of its own, and says so itself: leave it out";
        reader.problem(&root.join("cluster").join("advertise"), message.to_owned());
    }
    let urls = [
        ("url", &config.database.url),
        ("primary", &config.database.primary),
    ];
    for (key, url) in urls {
        if url.as_deref().is_some_and(|url| url.starts_with("sqlite:")) {
            let message = "the file lies in the volume of the pod: leave it out";
            reader.problem(&root.join("database").join(key), message.to_owned());
        }
    }
}

/// Whether all that the file refers to gets into a container.
fn check_references(config: &Config, secrets: &[SecretSource], reader: &mut Reader) {
    for (path, reference) in references(config) {
        let message = match &reference {
            SecretRef::Env(name) => {
                let given = |secret: &SecretSource| secret.environment.contains_key(name);
                if secrets.iter().any(given) {
                    continue;
                }
                format!("no Secret in `deployments.server.secrets` gives the variable `{name}`")
            }
            SecretRef::File(file) => {
                let folder = file.parent();
                let given = |secret: &SecretSource| secret.mount.as_deref() == folder;
                let key = file.file_name().and_then(|name| name.to_str());
                if secrets.iter().any(given) && key.is_some_and(is_key) {
                    continue;
                }
                format!(
                    "no Secret in `deployments.server.secrets` has the folder of `{}` as its `mount`",
                    file.display()
                )
            }
        };
        reader.problem(&path, message);
    }
}

/// All that the file refers to, with where it does.
fn references(config: &Config) -> Vec<(Path, SecretRef)> {
    let root = Path::default();
    let mut found = Vec::new();
    let database = root.join("database");
    for (key, url) in [
        ("url", &config.database.url),
        ("primary", &config.database.primary),
    ] {
        if let Some(Ok(reference)) = url.clone().map(SecretRef::try_from) {
            found.push((database.join(key), reference));
        }
    }
    let replicas = database.join("replicas");
    for (index, url) in config.database.replicas.iter().enumerate() {
        if let Ok(reference) = SecretRef::try_from(url.clone()) {
            found.push((replicas.join(index), reference));
        }
    }
    if let Some(password) = &config.database.password {
        found.push((database.join("password"), password.clone()));
    }
    let mut keys: Vec<_> = vec![(
        root.join("server").join("admin_keys"),
        &config.server.admin_keys,
    )];
    for (index, tenant) in config.tenants.iter().enumerate() {
        let path = root.join("tenants").join(index);
        for (name, secret) in &tenant.secrets {
            let path = path.join("secrets").join(name.as_str());
            found.push((path, secret.at().clone()));
        }
        keys.push((path.join("keys"), &tenant.keys));
    }
    for (path, keys) in keys {
        for (index, key) in keys.iter().enumerate() {
            if let Some(secret) = &key.secret {
                found.push((path.join(index).join("secret"), secret.clone()));
            }
        }
    }
    found
}

/// Notes a name that no object of Kubernetes can have, and no host.
fn check_domain(name: &str, path: &Path, reader: &mut Reader) {
    if name.len() > 253 || !name.split('.').all(|label| is_label(label, 63)) {
        let message = "must be a name of a-z, 0-9, - and .".to_owned();
        reader.problem(path, message);
    }
}

fn is_label(text: &str, most: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=most).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_image(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    (1..=512).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn is_variable(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty()
        && text.bytes().all(plain)
        && text.starts_with(|first: char| !first.is_ascii_digit())
}

fn is_key(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(plain)
}
