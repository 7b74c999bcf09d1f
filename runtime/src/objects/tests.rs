use super::*;
use crate::store::{ModelStore, Scratch};

/// Runs each function on contents that are files and on contents in a store.
macro_rules! on_each {
    ($($test:ident),+ $(,)?) => {
        mod in_files {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Bench::files()).await;
            })+
        }
        mod in_rows {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Bench::rows().await).await;
            })+
        }
    };
}

on_each!(
    a_content_stays_as_long_as_an_object_has_it,
    who_knows_a_digest_of_another_tenant_has_nothing_of_it,
    what_has_no_room_leaves_nothing_behind,
    what_is_written_in_pieces_is_read_from_anywhere,
    who_reads_a_content_reads_it_to_its_end,
);

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    /// Last, since the store is in it.
    _scratch: Option<Scratch>,
}

impl Bench {
    fn files() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            store: Arc::new(ModelStore::new()),
            _scratch: None,
        }
    }

    async fn rows() -> Self {
        let scratch = Scratch::new().await;
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            store: Arc::new(scratch.open().await),
            _scratch: Some(scratch),
        }
    }

    fn open(&self, quota: u64) -> Objects {
        let quota: Quota = Arc::new(move |_| quota);
        Objects::open(self.folder.path(), Arc::clone(&self.store), quota).expect("opens")
    }

    fn files_left(&self) -> usize {
        count(self.folder.path())
    }
}

fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("readable").path())
        .map(|path| if path.is_dir() { count(&path) } else { 1 })
        .sum()
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("valid")
}

/// A number of bytes that repeat at no block's length.
fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).expect("small"))
        .collect()
}

/// Where reading may wait.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

async fn read(objects: &Objects, of: &str, digest: &str) -> Option<Vec<u8>> {
    let content = objects.content(&tenant(of), digest).await.expect("reads");
    let mut content = content?;
    let read = apart(move || {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map(|_| bytes)
    });
    Some(read.await.expect("reads"))
}

async fn a_content_stays_as_long_as_an_object_has_it(bench: Bench) {
    let objects = bench.open(1 << 30);
    let acme = tenant("acme");
    let [a, b] = ["a", "b"].map(|key| name("in", key).expect("valid"));
    let first = objects.put(&acme, a.clone(), b"one", Timestamp(1)).await;
    let digest = first.expect("fits").digest;
    for (name, content) in [(&b, b"one"), (&a, b"two")] {
        let put = objects.put(&acme, name.clone(), content, Timestamp(2));
        put.await.expect("fits");
    }
    assert_eq!(
        read(&objects, "acme", &digest).await.as_deref(),
        Some(&b"one"[..])
    );
    assert!(objects.delete(&acme, &b).await.expect("deletes"));
    assert_eq!(read(&objects, "acme", &digest).await, None);
    assert!(objects.delete(&acme, &a).await.expect("deletes"));
    assert!(!objects.delete(&acme, &a).await.expect("answers"));
    assert_eq!(bench.files_left(), 0);
}

async fn who_knows_a_digest_of_another_tenant_has_nothing_of_it(bench: Bench) {
    let objects = bench.open(1 << 30);
    let here = name("in", "a").expect("valid");
    let acme = tenant("acme");
    let put = objects.put(&acme, here.clone(), b"secret", Timestamp(1));
    let digest = put.await.expect("fits").digest;
    assert_eq!(read(&objects, "rival", &digest).await, None);
    for odd in ["", "..", "../../x", "\0", &format!("../{}", &digest[3..])] {
        assert_eq!(read(&objects, "acme", odd).await, None, "{odd}");
    }
    let found = objects.get(&tenant("rival"), &here).await.expect("reads");
    assert!(found.is_none());
}

async fn what_has_no_room_leaves_nothing_behind(bench: Bench) {
    let objects = bench.open(1_100);
    let acme = tenant("acme");
    let here = |key: &str| name("in", key).expect("valid");
    let put = objects.put(&acme, here("a"), b"fits", Timestamp(1));
    let kept = put.await.expect("fits");
    let before = bench.files_left();
    let over = objects.put(&acme, here("b"), b"no", Timestamp(1)).await;
    assert!(
        matches!(over, Err(Error::Store(store::Error::ObjectQuota { .. }))),
        "{over:?}"
    );
    let over = objects.put(&acme, here("a"), &[0; 1_101], Timestamp(1));
    assert!(matches!(over.await, Err(Error::TooLarge(1_100))));
    let mut dropped = objects.upload(&acme).expect("begins");
    dropped.write(b"never").await.expect("fits");
    drop(dropped);
    assert_eq!(bench.files_left(), before);
    assert_eq!(
        read(&objects, "acme", &kept.digest).await.as_deref(),
        Some(&b"fits"[..])
    );
    let refused = hex(&Sha256::digest(b"no"));
    assert_eq!(read(&objects, "acme", &refused).await, None);
}

async fn what_is_written_in_pieces_is_read_from_anywhere(bench: Bench) {
    let objects = bench.open(1 << 30);
    let acme = tenant("acme");
    let block = store::BLOCK_BYTES;
    for length in [0, 1, block - 1, block, block + 1, 2 * block, 3 * block + 7] {
        let bytes = pattern(length);
        let mut upload = objects.upload(&acme).expect("begins");
        for piece in bytes.chunks(100_003) {
            upload.write(piece).await.expect("fits");
        }
        let key = name("in", "a").expect("valid");
        let object = upload.finish(key, Timestamp(1)).await.expect("fits");
        assert_eq!(object.size, length as u64);
        assert_eq!(object.digest, hex(&Sha256::digest(&bytes)));
        let whole = read(&objects, "acme", &object.digest).await;
        assert!(whole.as_ref() == Some(&bytes), "{length} differ");
        let content = objects.content(&acme, &object.digest).await;
        let mut content = content.expect("reads").expect("is there");
        apart(move || {
            for at in [length / 2, 0, length.saturating_sub(1), length, length + 9] {
                content.seek(SeekFrom::Start(at as u64)).expect("seeks");
                let mut rest = Vec::new();
                content.read_to_end(&mut rest).expect("reads");
                assert!(rest == bytes[at.min(length)..], "{length} from {at}");
            }
        })
        .await;
    }
}

async fn who_reads_a_content_reads_it_to_its_end(bench: Bench) {
    let objects = bench.open(1 << 30);
    let (acme, key) = (tenant("acme"), name("in", "a").expect("valid"));
    let bytes = pattern(3 * store::BLOCK_BYTES);
    let put = objects.put(&acme, key.clone(), &bytes, Timestamp(1));
    put.await.expect("fits");
    let found = objects.find(&acme, &key).await.expect("reads");
    let mut content = found.expect("is there").1.expect("with its content");
    let (content, mut first) = apart(move || {
        let mut first = vec![0; 10];
        content.read_exact(&mut first).expect("reads");
        (content, first)
    })
    .await;
    let replaced = objects.put(&acme, key.clone(), b"other", Timestamp(2));
    replaced.await.expect("fits");
    assert!(objects.delete(&acme, &key).await.expect("deletes"));
    let mut content = content;
    let rest = apart(move || {
        let mut rest = Vec::new();
        content.read_to_end(&mut rest).map(|_| rest)
    });
    first.extend(rest.await.expect("reads on"));
    assert!(first == bytes, "it differs");
}

#[tokio::test]
async fn what_one_server_writes_another_reads() {
    let bench = Bench::rows().await;
    let here = bench.open(1 << 30);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let there = Objects::open(
        elsewhere.path(),
        Arc::clone(&bench.store),
        Arc::new(|_| 1 << 30),
    );
    let there = there.expect("opens");
    let (acme, key) = (tenant("acme"), name("in", "a").expect("valid"));
    let put = here.put(&acme, key.clone(), b"shared", Timestamp(1));
    let digest = put.await.expect("fits").digest;
    assert_eq!(
        read(&there, "acme", &digest).await.as_deref(),
        Some(&b"shared"[..])
    );
    assert!(there.delete(&acme, &key).await.expect("deletes"));
    assert_eq!(read(&here, "acme", &digest).await, None);
}

#[tokio::test]
async fn files_of_an_earlier_release_are_read_and_taken_into_the_store() {
    let bench = Bench::rows().await;
    let (acme, rival) = (tenant("acme"), tenant("rival"));
    let bytes = pattern(store::BLOCK_BYTES + 1);
    let digest = hex(&Sha256::digest(&bytes));
    // As that release wrote them: a file, and then a row.
    let files = Files::open(bench.folder.path()).expect("a folder");
    for (of, content) in [
        (&acme, &bytes[..]),
        (&acme, &b"nobody's"[..]),
        (&rival, &b"theirs"[..]),
    ] {
        let mut draft = files.begin().expect("begins");
        draft.write(content).await.expect("writes");
        draft.finish().await.expect("syncs");
        let digest = hex(&Sha256::digest(content));
        files.keep(of, draft, &digest).await.expect("keeps");
    }
    let object = Object {
        name: name("in", "a").expect("valid"),
        digest: digest.clone(),
        size: bytes.len() as u64,
        created_at: Timestamp(1),
    };
    let put = bench.store.put_object(&acme, object, 1 << 30);
    put.await.expect("fits");
    let objects = bench.open(1 << 30);
    assert!(read(&objects, "acme", &digest).await.as_ref() == Some(&bytes));
    let Place::Rows {
        rows,
        earlier: Some(files),
    } = &objects.0.place
    else {
        panic!("there are some");
    };
    take_in(rows, files, &acme).await.expect("takes them in");
    assert_eq!(bench.files_left(), 1, "but for the other tenant's");
    assert!(read(&objects, "acme", &digest).await.as_ref() == Some(&bytes));
    take_in(rows, files, &acme)
        .await
        .expect("has nothing to do");
    take_in(rows, files, &rival).await.expect("takes them in");
    assert_eq!(bench.files_left(), 0);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let quota: Quota = Arc::new(|_| 1 << 30);
    let there = Objects::open(elsewhere.path(), Arc::clone(&bench.store), quota);
    let there = there.expect("opens");
    assert!(read(&there, "acme", &digest).await.as_ref() == Some(&bytes));
}

#[test]
fn names_are_short_and_plain() {
    for bucket in ["", "A", "a/b", "..", ".a", "-a", "ä", &"a".repeat(64)] {
        assert!(name(bucket, "k").is_err(), "{bucket}");
    }
    for key in ["", "a\0b", "a\nb", &"a".repeat(513)] {
        assert!(name("b", key).is_err(), "{key}");
    }
    // Of a key nothing becomes a path.
    for key in ["../../etc/passwd", "/", "a b", "ü"] {
        assert!(name("my-bucket_1.x", key).is_ok(), "{key}");
    }
}
