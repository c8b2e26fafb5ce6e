//! Whose process is at the other end of a connection within this machine. The kernel knows the user
//! of every socket: it is asked by netlink (`man 7 sock_diag`), and where it does not answer so, its
//! table in `/proc` is read, which takes time in proportion to all sockets.

use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Numbers of the kernel's interface.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;

/// Bytes before the user id in the answer: the header, the socket's state, its addresses, and three
/// numbers.
const UID_OFFSET: usize = 16 + 4 + 48 + 12;

/// Bytes before the number of the socket's file in the answer.
const INODE_OFFSET: usize = UID_OFFSET + 4;

/// The kernel answers at once. This bounds the wait for one that does not.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// The user id of the process whose socket is bound to `peer` and connected to `local`. `None` where
/// there is no such socket on this machine, or the kernel does not tell.
pub(super) fn of_peer(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    if !peer.ip().is_loopback() {
        return None;
    }
    by_netlink(peer, local)
        .ok()
        .or_else(|| by_table(peer, local))
}

fn by_netlink(peer: SocketAddr, local: SocketAddr) -> io::Result<u32> {
    let protocol = Protocol::from(NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.send(&question(peer, local))?;
    let mut answer = [0; 1_024];
    let length = socket.read(&mut answer)?;
    uid_in(answer.get(..length).unwrap_or_default()).ok_or(ErrorKind::NotFound.into())
}

/// The question for exactly one socket: a netlink header, and `struct inet_diag_req_v2`.
fn question(peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let family = match peer.ip() {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let mut body = vec![family, IPPROTO_TCP, 0, 0];
    // Every state of a socket.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(peer.port().to_be_bytes());
    body.extend(local.port().to_be_bytes());
    body.extend(address_bytes(peer.ip()));
    body.extend(address_bytes(local.ip()));
    // Any network interface.
    body.extend(0_u32.to_ne_bytes());
    // No cookie: the socket is not known from an earlier answer.
    body.extend([u8::MAX; 8]);

    let length = 16 + body.len() as u32;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // The number of the question, and the sender, which the kernel fills in.
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// The user id in an answer. `None` where the answer is an error, or where no process has the socket
/// any more: of such a socket the kernel says that it is root's.
fn uid_in(answer: &[u8]) -> Option<u32> {
    let kind = answer.get(4..6)?;
    if kind != SOCK_DIAG_BY_FAMILY.to_ne_bytes() {
        return None;
    }
    let number_at = |offset: usize| {
        let bytes = answer.get(offset..offset + 4)?;
        bytes.try_into().ok().map(u32::from_ne_bytes)
    };
    let is_open = number_at(INODE_OFFSET)? != 0;
    number_at(UID_OFFSET).filter(|_| is_open)
}

fn by_table(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let file = match peer.ip() {
        IpAddr::V4(_) => "/proc/net/tcp",
        IpAddr::V6(_) => "/proc/net/tcp6",
    };
    let table = fs::read_to_string(file).ok()?;
    let peer = in_table(peer);
    let local = in_table(local);
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_it = fields.next()? == peer && fields.next()? == local;
        if !is_it {
            return None;
        }
        // Between the addresses and the user id stand state, queues, timer and retransmits.
        let uid = fields.nth(4)?.parse().ok()?;
        let inode = fields.nth(1)?;
        (inode != "0").then_some(uid)
    })
}

/// An address as the kernel's table has it: words of four bytes in the machine's order.
fn in_table(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets
        .chunks_exact(4)
        .filter_map(|word| word.try_into().ok())
        .map(|word| format!("{:08X}", u32::from_ne_bytes(word)));
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_user_of_a_peer_on_this_machine_is_told_in_both_ways() {
        let own = fs::metadata("/proc/self").unwrap().uid();
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                // This machine has no IPv6.
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let host = address.trim_end_matches(":0").replace("[::]", "127.0.0.1");
            let client = TcpStream::connect(format!("{host}:{port}")).unwrap();
            let (accepted, peer) = listener.accept().unwrap();
            let local = accepted.local_addr().unwrap();
            assert_eq!(of_peer(peer, local), Some(own), "{address}");
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let local = SocketAddr::new(local.ip().to_canonical(), local.port());
            assert_eq!(by_table(peer, local), Some(own), "{address}");
            let other = SocketAddr::new(peer.ip(), peer.port() ^ 1);
            assert_eq!(of_peer(other, local), None, "{address}");
            drop(client);
            assert_eq!(of_peer(peer, local), None, "nobody has it: {address}");
            assert_eq!(by_table(peer, local), None, "nobody has it: {address}");
        }
        let far = "192.0.2.1:1".parse().unwrap();
        assert_eq!(of_peer(far, far), None);
    }

    #[test]
    fn an_answer_that_is_cut_off_or_an_error_tells_nobody() {
        let mut answer = vec![0; INODE_OFFSET + 4];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[UID_OFFSET..INODE_OFFSET].copy_from_slice(&1_000_u32.to_ne_bytes());
        assert_eq!(uid_in(&answer), None, "no process has it");
        answer[INODE_OFFSET..].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(uid_in(&answer), Some(1_000));
        assert_eq!(uid_in(&answer[..INODE_OFFSET + 3]), None);
        assert_eq!(uid_in(&[]), None);
        answer[4] = 2;
        assert_eq!(uid_in(&answer), None);
    }
}
