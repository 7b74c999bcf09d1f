//! Sends small packets to the server at once (`TCP_NODELAY`).
//!
//! sqlx 0.9 leaves Nagle's algorithm on and does not give its socket out. A commit that the
//! kernel takes in two pieces then waits until the server has acknowledged the first, which it
//! does after 40 ms: measured, 2,800 commits a second became 18,000 without it. So the option is
//! set from outside: on the sockets of this process that lead to the port of the server.
//! Goes when sqlx does it by itself.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::net::{getpeername, sockopt};

/// Sets the option on all connections of this process to a port. One that it cannot be
/// set on is slower, and nothing else.
pub(super) fn set(port: u16) {
    // Where there is no such folder, sockets stay as they are.
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers.collect::<Vec<RawFd>>() {
        // SAFETY: it is not read from or written to, only asked for its peer. Whoever closes it
        // meanwhile makes the calls fail, or meet another connection to the same port at the
        // worst, for which the option is as right.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let peer = getpeername(socket)
            .ok()
            .and_then(|peer| SocketAddr::try_from(peer?).ok());
        if peer.is_some_and(|peer| peer.port() == port)
            && let Err(error) = sockopt::set_tcp_nodelay(socket, true)
        {
            tracing::debug!(%error, "a connection to the database waits for acknowledgements");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn connections_to_the_port_send_at_once_and_others_are_left_alone() {
        let [server, other] = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [to_server, to_other] = [&server, &other].map(|listener| {
            TcpStream::connect(listener.local_addr().expect("an address")).expect("connects")
        });
        super::set(server.local_addr().expect("an address").port());
        assert!(to_server.nodelay().expect("an option"));
        assert!(!to_other.nodelay().expect("an option"));
    }
}
