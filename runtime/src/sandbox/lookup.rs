//! Looking names up, for requests of guests.
//!
//! The system's resolver keeps a thread for as long as a name server likes to
//! take, and a guest chooses the name server by the name. The threads are those
//! that load modules too. So lookups are few, fewer still of one tenant, and one
//! that nobody waits for any more counts until its thread is free again.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cascade_cdl::TenantId;
use tokio::sync::Semaphore;

/// Most lookups at a time: a sixteenth of the threads that block.
const LOOKUPS: usize = 32;
/// Most of one tenant. Names that answer take milliseconds.
const LOOKUPS_PER_TENANT: usize = 4;

type Resolver = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// The lookups of this process.
pub(super) struct Lookups {
    all: Arc<Semaphore>,
    /// Of each tenant that has any.
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
    resolver: Arc<Resolver>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self::with(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }
}

impl Lookups {
    fn with(
        resolver: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            all: Arc::new(Semaphore::new(LOOKUPS)),
            tenants: Mutex::default(),
            resolver: Arc::new(resolver),
        }
    }

    /// The addresses of a name, with port 0. Waits for its turn; dropping the
    /// future gives the wait up, but not a lookup that has begun.
    pub(super) async fn addresses(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> io::Result<Vec<SocketAddr>> {
        const OPEN: &str = "the semaphore is never closed";
        let own = self.of(tenant).acquire_owned().await.expect(OPEN);
        let one = Arc::clone(&self.all).acquire_owned().await.expect(OPEN);
        let (resolver, name) = (Arc::clone(&self.resolver), name.to_owned());
        let lookup = move || {
            let _held = (own, one);
            resolver(&name)
        };
        tokio::task::spawn_blocking(lookup).await?
    }

    fn of(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = tenants.get(tenant).and_then(Weak::upgrade) {
            return own;
        }
        tenants.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(LOOKUPS_PER_TENANT));
        tenants.insert(tenant.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc;

    use futures::FutureExt as _;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("valid")
    }

    #[tokio::test]
    async fn lookups_that_hang_take_few_threads_and_leave_those_of_others() {
        let (log, asked) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let lookups = Lookups::with(move |name| {
            log.send(name.to_owned()).expect("the test goes on");
            if name == "slow" {
                // Returns once the test lets go of its end.
                let _ = released.lock().expect("no test panics here").recv();
            }
            Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)])
        });
        // Given up at once, as by requests whose time is over.
        for _ in 0..10 {
            let slow = lookups.addresses(&tenant("a"), "slow").now_or_never();
            assert!(slow.is_none());
        }
        let quick = lookups.addresses(&tenant("b"), "quick").await;
        assert_eq!(quick.expect("an address").len(), 1);
        drop(release);
        let after = lookups.addresses(&tenant("a"), "quick").await;
        assert!(
            after.is_ok(),
            "what hung has ended, and its places are free"
        );
        drop(lookups);
        let slow = asked.iter().filter(|name| name == "slow").count();
        assert_eq!(slow, LOOKUPS_PER_TENANT);
    }
}
