use super::*;
use crate::store::{ModelStore, Subject};

const NOW: Timestamp = Timestamp(1_000);

fn id(text: &str) -> TenantId {
    text.parse().expect("valid")
}

async fn load(text: &str, store: &Arc<ModelStore>) -> Tenancy {
    let config = Config::parse("test.yaml", text, &|_| None).expect("valid");
    Tenancy::load(&config, Arc::clone(store) as _)
        .await
        .expect("loads")
}

#[tokio::test]
async fn what_was_made_over_http_is_there_after_a_restart() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("", &store).await;
    let mut settings = Settings::default();
    settings.limits.memory_bytes = 7;
    tenancy.put(id("made"), settings, NOW).await.expect("fits");
    let new = tenancy
        .make_key(&id("made"), Role::Author, "l".into(), NOW)
        .await
        .expect("made");
    let again = load("", &store).await;
    assert_eq!(
        again
            .tenant(&id("made"))
            .expect("there")
            .limits
            .memory_bytes,
        7
    );
    let principal = again.authenticate(&new.text).await.expect("valid");
    assert!(
        matches!(
            principal,
            Principal::Tenant {
                role: Role::Author,
                ..
            }
        ),
        "{principal:?}"
    );
}

#[tokio::test]
async fn the_file_wins_over_the_store() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("", &store).await;
    tenancy
        .put(id("both"), Settings::default(), NOW)
        .await
        .expect("fits");
    let again = load("tenants: [{id: both, weight: 9}]", &store).await;
    let tenant = again.tenant(&id("both")).expect("there");
    assert_eq!((tenant.weight.0.get(), tenant.configured), (9, true));
    let changed = again.put(id("both"), Settings::default(), NOW).await;
    assert!(matches!(changed, Err(Error::Configured(_))), "{changed:?}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_though_it_was_remembered() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("tenants: [{id: a}, {id: b}]", &store).await;
    let new = tenancy
        .make_key(&id("a"), Role::Viewer, String::new(), NOW)
        .await
        .expect("made");
    tenancy
        .authenticate(&new.text)
        .await
        .expect("valid, and remembered now");
    assert!(
        !tenancy
            .revoke(&id("b"), &new.key.id)
            .await
            .expect("answers"),
        "it is not b's"
    );
    tenancy.authenticate(&new.text).await.expect("still valid");
    assert!(
        tenancy
            .revoke(&id("a"), &new.key.id)
            .await
            .expect("answers")
    );
    let refused = tenancy.authenticate(&new.text).await;
    assert!(matches!(refused, Err(Denied::Unknown)), "{refused:?}");
}

#[tokio::test]
async fn a_key_is_good_only_as_it_was_made() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("tenants: [{id: a}]", &store).await;
    let new = tenancy
        .make_key(&id("a"), Role::Viewer, String::new(), NOW)
        .await
        .expect("made");
    for remembered in [false, true] {
        let mut other = new.text.clone();
        let last = if other.pop() == Some('0') { '1' } else { '0' };
        other.push(last);
        let upper = new.text.to_uppercase().replace("CK_", "ck_");
        for bad in [other, upper, new.key.hash.clone(), new.key.id.clone()] {
            assert!(
                tenancy.authenticate(&bad).await.is_err(),
                "{bad}, remembered: {remembered}"
            );
        }
        tenancy
            .authenticate(&new.text)
            .await
            .expect("remembered from here on");
    }
}

#[tokio::test]
async fn a_label_is_one_short_line() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("tenants: [{id: a}]", &store).await;
    for label in [
        "a\nb".to_owned(),
        "\u{1b}[31m".to_owned(),
        "x".repeat(MAX_LABEL + 1),
    ] {
        let made = tenancy.make_key(&id("a"), Role::Viewer, label, NOW).await;
        assert!(matches!(made, Err(Error::Label)));
    }
    let made = tenancy
        .make_key(&id("nobody"), Role::Viewer, String::new(), NOW)
        .await;
    assert!(matches!(made, Err(Error::NoTenant(_))));
}

#[test]
fn roles_include_those_before_them() {
    let order = [Role::Viewer, Role::Operator, Role::Author, Role::Admin];
    assert!(order.is_sorted());
    for role in order {
        assert_eq!(Role::of_name(role.name()), Some(role));
    }
}

/// As it is half a minute after its last lookup.
fn age(tenancy: &Tenancy, key: &NewKey) {
    let mut remembered = tenancy.remembered();
    let known = remembered.keys.get_mut(&key.key.id).expect("remembered");
    known.since = known
        .since
        .checked_sub(KEY_LIFETIME)
        .expect("long after the start");
}

async fn make(tenancy: &Tenancy) -> NewKey {
    let owner = id("a");
    let made = tenancy.make_key(&owner, Role::Viewer, String::new(), NOW);
    made.await.expect("made")
}

#[tokio::test]
async fn guesses_do_not_keep_out_a_key_that_is_known() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("tenants: [{id: a}]", &store).await;
    let key = make(&tenancy).await;
    tenancy.authenticate(&key.text).await.expect("valid");
    age(&tenancy, &key);
    let lookups = u32::try_from(MAX_LOOKUPS).expect("few");
    let _guesses = tenancy.0.lookups.acquire_many(lookups).await;
    tenancy.authenticate(&key.text).await.expect("still known");
}

#[tokio::test]
async fn a_key_that_is_new_here_waits_while_others_are_looked_up() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("tenants: [{id: a}]", &store).await;
    let key = make(&tenancy).await;
    let lookups = u32::try_from(MAX_LOOKUPS).expect("few");
    let guesses = tenancy.0.lookups.acquire_many(lookups).await;
    let free = async { drop(guesses) };
    let (let_in, ()) = tokio::join!(tenancy.authenticate(&key.text), free);
    let_in.expect("valid");
}

#[tokio::test]
async fn a_key_revoked_elsewhere_is_noticed_after_its_next_use() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("tenants: [{id: a}]", &store).await;
    let key = make(&tenancy).await;
    tenancy.authenticate(&key.text).await.expect("valid");
    let deleted = store.delete_key(&id("a"), &key.key.id).await;
    assert!(deleted.expect("answers"));
    tenancy.authenticate(&key.text).await.expect("remembered");
    age(&tenancy, &key);
    tenancy
        .authenticate(&key.text)
        .await
        .expect("asked for again");
    while tenancy.remembered().keys.contains_key(&key.key.id) {
        tokio::task::yield_now().await;
    }
    let refused = tenancy.authenticate(&key.text).await;
    assert!(matches!(refused, Err(Denied::Unknown)), "{refused:?}");
}

/// Makes a change whose client hangs up between the store and the memory, and
/// waits for what becomes of it.
async fn hang_up<T: Send + 'static>(
    store: &ModelStore,
    tenancy: &Tenancy,
    change: impl Future<Output = T> + Send + 'static,
) {
    store.hold_commits();
    let change = tokio::spawn(change);
    store.held(1).await;
    change.abort();
    assert!(change.await.is_err(), "it was cut off");
    store.release();
    drop(tenancy.0.changes.lock().await);
}

#[tokio::test]
async fn a_change_holds_though_its_client_hung_up() {
    let store = Arc::new(ModelStore::new());
    let tenancy = load("tenants: [{id: a}]", &store).await;
    let key = make(&tenancy).await;
    tenancy.authenticate(&key.text).await.expect("valid");

    let changing = tenancy.clone();
    let put = async move { changing.put(id("made"), Settings::default(), NOW).await };
    hang_up(&store, &tenancy, put).await;
    assert!(tenancy.tenant(&id("made")).is_some());

    let (changing, revoked) = (tenancy.clone(), key.key.id.clone());
    let revoke = async move { changing.revoke(&id("a"), &revoked).await };
    hang_up(&store, &tenancy, revoke).await;
    let refused = tenancy.authenticate(&key.text).await;
    assert!(matches!(refused, Err(Denied::Unknown)), "{refused:?}");
}

#[tokio::test]
async fn a_key_revoked_elsewhere_is_refused_as_soon_as_that_is_told() {
    let store = Arc::new(ModelStore::new());
    let (here, there) = (
        load("tenants: [{id: a}, {id: b}]", &store).await,
        load("tenants: [{id: a}, {id: b}]", &store).await,
    );
    let key = make(&there).await;
    here.authenticate(&key.text).await.expect("looked up");
    there.revoke(&id("a"), &key.key.id).await.expect("revokes");
    let other = here.take_in(&id("b"), &Subject::Keys).await;
    other.expect("is not about it");
    here.authenticate(&key.text).await.expect("remembered");
    let told = here.take_in(&id("a"), &Subject::Keys).await;
    told.expect("takes it in");
    let refused = here.authenticate(&key.text).await;
    assert!(matches!(refused, Err(Denied::Unknown)), "{refused:?}");
}

#[tokio::test]
async fn no_key_is_remembered_while_nobody_tells_of_revocations() {
    let store = Arc::new(ModelStore::new());
    let (here, there) = (
        load("tenants: [{id: a}]", &store).await,
        load("tenants: [{id: a}]", &store).await,
    );
    let key = make(&there).await;
    here.authenticate(&key.text).await.expect("looked up");
    here.doubt_keys(true);
    assert!(here.doubts_keys());
    here.authenticate(&key.text).await.expect("looked up again");
    there.revoke(&id("a"), &key.key.id).await.expect("revokes");
    let refused = here.authenticate(&key.text).await;
    assert!(matches!(refused, Err(Denied::Unknown)), "{refused:?}");
    here.doubt_keys(false);
    let second = make(&there).await;
    here.authenticate(&second.text).await.expect("valid");
    assert_eq!(here.remembered().keys.len(), 1);
}

#[tokio::test]
async fn a_tenant_made_elsewhere_is_known_with_its_first_key_and_changed_when_told() {
    let store = Arc::new(ModelStore::new());
    let here = load("tenants: [{id: mine}]", &store).await;
    let there = load("", &store).await;
    let put = |bytes| {
        let mut settings = Settings::default();
        settings.limits.memory_bytes = bytes;
        there.put(id("a"), settings, NOW)
    };
    put(7).await.expect("fits");
    let key = make(&there).await;
    here.authenticate(&key.text).await.expect("looked for");
    let bytes = |of: &Tenancy| of.tenant(&id("a")).map(|it| it.limits.memory_bytes);
    assert_eq!(bytes(&here), Some(7));
    put(8).await.expect("fits");
    let told = here.take_in(&id("a"), &Subject::Tenant).await;
    told.expect("takes it in");
    assert_eq!(bytes(&here), Some(8));
    // The file wins, whatever another server's file lacks.
    let other = there.put(id("mine"), Settings::default(), NOW).await;
    other.expect("is not in that file");
    let told = here.take_in(&id("mine"), &Subject::Tenant).await;
    told.expect("takes it in");
    assert!(here.tenant(&id("mine")).expect("there").configured);
    assert!(here.look_for(&id("nobody")).await.expect("reads").is_none());
}
