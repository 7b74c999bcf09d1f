//! The artifact cache is untrusted input.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cascade_cdl::TenantId;
use cascade_runtime::sandbox::failure::{ACTIVITY_NOT_FOUND, UNAVAILABLE};

use super::support::{Bed, block_on, failure, fixture, invocation, output, tenant};

fn artifact(folder: &Path, tenant: &TenantId, digest: &str) -> PathBuf {
    folder
        .join("artifacts")
        .join(tenant.as_str())
        .join(format!("{digest}.cwasm"))
}

/// Runs the echo on a fresh sandbox over `folder` whose shelf is empty: it
/// runs only if its artifact is taken from the cache.
async fn runs_from_cache(folder: &Path, tenant: &TenantId, digest: &str) -> bool {
    let bed = Bed::at(folder);
    let mut invocation = invocation(digest, "1");
    invocation.tenant = tenant.clone();
    let outcome = bed.sandbox.run(invocation).await;
    if let Err(failure) = &outcome.result {
        assert_eq!(failure.error, ACTIVITY_NOT_FOUND, "{}", failure.message);
    }
    outcome.result.is_ok()
}

#[test]
fn an_artifact_is_used_again_only_as_it_was_written() {
    block_on(async {
        let bed = Bed::new();
        let digest = bed.admit(fixture("echo")).await.digest;
        let path = artifact(&bed.folder, &tenant(), &digest);
        let good = fs::read(&path).expect("an artifact");
        assert!(
            runs_from_cache(&bed.folder, &tenant(), &digest).await,
            "as written"
        );

        // One bit anywhere: in the mark, the MAC, the description, the code, at the end.
        for at in [0, 20, 60, good.len() / 2, good.len() - 1] {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).expect("writable");
            assert!(
                !runs_from_cache(&bed.folder, &tenant(), &digest).await,
                "bit in byte {at}"
            );
        }
        for len in [0, 10, 60, good.len() - 1] {
            fs::write(&path, &good[..len]).expect("writable");
            assert!(
                !runs_from_cache(&bed.folder, &tenant(), &digest).await,
                "cut to {len}"
            );
        }
        let longer = [&good[..], b"x"].concat();
        fs::write(&path, longer).expect("writable");
        assert!(
            !runs_from_cache(&bed.folder, &tenant(), &digest).await,
            "one byte more"
        );
        fs::write(&path, &good).expect("writable");
        assert!(
            runs_from_cache(&bed.folder, &tenant(), &digest).await,
            "as written, again"
        );
    });
}

#[test]
fn an_artifact_of_another_module_tenant_or_server_is_not_used() {
    block_on(async {
        let bed = Bed::new();
        let echo = bed.admit(fixture("echo")).await.digest;
        let noop = bed.admit(fixture("noop")).await.digest;
        let other: TenantId = "other".parse().expect("a valid tenant");
        let from = artifact(&bed.folder, &tenant(), &echo);

        let in_place_of = artifact(&bed.folder, &tenant(), &noop);
        fs::copy(&from, in_place_of).expect("writable");
        assert!(
            !runs_from_cache(&bed.folder, &tenant(), &noop).await,
            "another module's"
        );

        let foreign = artifact(&bed.folder, &other, &echo);
        fs::create_dir_all(foreign.parent().expect("a folder")).expect("writable");
        fs::copy(&from, foreign).expect("writable");
        assert!(
            !runs_from_cache(&bed.folder, &other, &echo).await,
            "another tenant's"
        );

        let elsewhere = Bed::new();
        let there = artifact(&elsewhere.folder, &tenant(), &echo);
        fs::create_dir_all(there.parent().expect("a folder")).expect("writable");
        fs::copy(&from, there).expect("writable");
        assert!(
            !runs_from_cache(&elsewhere.folder, &tenant(), &echo).await,
            "another server's key"
        );
    });
}

#[test]
fn a_damaged_artifact_is_compiled_again_from_the_module() {
    block_on(async {
        let bed = Bed::new();
        let wasm = fixture("echo");
        let digest = bed.admit(wasm.clone()).await.digest;
        let path = artifact(&bed.folder, &tenant(), &digest);
        fs::write(&path, b"damaged").expect("writable");
        let again = Bed::at(&bed.folder);
        again.shelf.put(&tenant(), &wasm);
        let outcome = again.sandbox.run(invocation(&digest, "1")).await;
        assert_eq!(output(&outcome), "1");
        assert!(
            fs::read(&path).expect("an artifact").len() > 1_000,
            "it was written again"
        );
    });
}

#[test]
fn a_module_that_is_forgotten_is_gone() {
    block_on(async {
        let bed = Bed::new();
        let digest: Arc<str> = bed.admit(fixture("echo")).await.digest.into();
        bed.sandbox.forget(&tenant(), &digest).expect("removable");
        assert!(bed.sandbox.loaded(&tenant(), &digest).is_none());
        assert!(!artifact(&bed.folder, &tenant(), &digest).exists());
    });
}

#[test]
fn stored_bytes_that_are_not_the_module_are_not_run() {
    block_on(async {
        let bed = Bed::new();
        let echo = fixture("echo");
        let digest = bed.shelf.put(&tenant(), &echo);
        bed.shelf.replace(&tenant(), &digest, fixture("noop"));
        let outcome = bed.sandbox.run(invocation(&digest, "1")).await;
        let failure = failure(&outcome);
        assert_eq!(failure.error, UNAVAILABLE);
        assert!(
            failure.message.contains("digest differs"),
            "{}",
            failure.message
        );
    });
}

#[test]
fn the_key_is_the_servers_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let bed = Bed::new();
    let mode = |name: &str| {
        fs::metadata(bed.folder.join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("artifact.key"), 0o600);
    assert_eq!(mode("artifacts"), 0o700);
}
