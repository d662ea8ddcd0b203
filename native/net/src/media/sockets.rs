//! Ports for media: bound before anybody asks for them, closed when their call is over.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use edge::{PortPair, PortPool};
use ring_queue::Mailbox;
use socket2::{Domain, Protocol, Socket, Type};

use crate::datagram::set_option;

/// Ports that were taken by others and are passed over in one go.
const TRIES: usize = 64;
/// Datagrams thrown away at most that came to a port before it was taken.
const STALE: usize = 64;

/// A pair that is ready to be taken by a worker.
pub(crate) struct ReadyPair {
    pair: PortPair,
    sockets: Arc<[UdpSocket; 2]>,
}

impl ReadyPair {
    /// Takes it. What came there before came for nobody; what comes from now on may be of the call, long before its media worker listens
    /// on a busy machine.
    pub(crate) fn take(self) -> PortPair {
        for socket in &*self.sockets {
            let mut left = STALE;
            while left > 0 && socket.recv_from(&mut [0; 1]).is_ok() {
                left -= 1;
            }
        }
        self.pair
    }
}

/// The sockets of one pair, for RTP and RTCP.
pub(super) struct Pair {
    pub(super) sockets: Arc<[UdpSocket; 2]>,
    /// Whether it is listened to.
    pub(super) listens: bool,
    interface: usize,
    port: u16,
}

/// One local address.
struct Interface {
    address: IpAddr,
    pool: PortPool,
    ready: Vec<Arc<Mailbox<ReadyPair>>>,
}

/// All ports of one media worker.
pub(super) struct Sockets {
    pairs: Vec<Option<Pair>>,
    free: Vec<u32>,
    interfaces: Vec<Interface>,
    dscp: u8,
    ready: usize,
}

impl Sockets {
    pub(super) fn new(dscp: u8, ready: usize) -> Self {
        Self { pairs: Vec::new(), free: Vec::new(), interfaces: Vec::new(), dscp, ready }
    }

    /// Keeps ports of `pool` at `address` ready from now on.
    ///
    /// # Errors
    /// Where not one can be bound.
    pub(super) fn serve(&mut self, address: IpAddr, pool: PortPool, ready: Vec<Arc<Mailbox<ReadyPair>>>) -> io::Result<()> {
        let index = match self.interfaces.iter().position(|interface| interface.address == address) {
            // It was withdrawn before.
            Some(index) => {
                self.interfaces[index].ready = ready;
                index
            }
            None => {
                self.interfaces.push(Interface { address, pool, ready });
                self.interfaces.len() - 1
            }
        };
        let filled = self.fill_one(index);
        if filled.is_err() {
            self.withdraw(address);
        }
        filled
    }

    /// Closes what waits at `address`, and keeps nothing ready there any more.
    pub(super) fn withdraw(&mut self, address: IpAddr) {
        let at = self.interfaces.iter_mut().filter(|interface| interface.address == address);
        let queues: Vec<_> = at.flat_map(|interface| std::mem::take(&mut interface.ready)).collect();
        for queue in queues {
            while let Some(ready) = queue.take() {
                self.close(ready.pair);
            }
        }
    }

    /// Makes up for what was taken.
    pub(super) fn fill(&mut self) {
        for interface in 0..self.interfaces.len() {
            if let Err(error) = self.fill_one(interface) {
                log::debug!(target: "media", "no further port of {}: {error}", self.interfaces[interface].address);
            }
        }
    }

    fn fill_one(&mut self, interface: usize) -> io::Result<()> {
        for queue in 0..self.interfaces[interface].ready.len() {
            while self.interfaces[interface].ready[queue].len() < self.ready {
                let ready = match self.bind(interface) {
                    Ok(ready) => ready,
                    // The last ones are shared by the workers as they come.
                    Err(_) if !self.interfaces[interface].ready[queue].is_empty() => return Ok(()),
                    Err(error) => return Err(error),
                };
                if let Err(ready) = self.interfaces[interface].ready[queue].post(ready) {
                    self.close(ready.pair);
                    break;
                }
            }
        }
        Ok(())
    }

    fn bind(&mut self, interface: usize) -> io::Result<ReadyPair> {
        let mut why = io::Error::new(io::ErrorKind::AddrInUse, "every port of the range is taken");
        for _ in 0..TRIES {
            let (address, pool) = (self.interfaces[interface].address, &mut self.interfaces[interface].pool);
            let Some(port) = pool.take() else { return Err(why) };
            match bound(address, port, self.dscp).and_then(|first| Ok([first, bound(address, port + 1, self.dscp)?])) {
                Ok(sockets) => {
                    let slot = self.free.pop().unwrap_or_else(|| {
                        self.pairs.push(None);
                        self.pairs.len() as u32 - 1
                    });
                    let sockets = Arc::new(sockets);
                    self.pairs[slot as usize] = Some(Pair { sockets: Arc::clone(&sockets), listens: false, interface, port });
                    return Ok(ReadyPair { pair: PortPair { slot, port }, sockets });
                }
                Err(error) => {
                    self.interfaces[interface].pool.give(port);
                    why = error;
                }
            }
        }
        Err(why)
    }

    /// Closes a pair: its ports may be bound again, those that have been free for longer first.
    pub(super) fn close(&mut self, pair: PortPair) {
        if let Some(closed) = self.pairs.get_mut(pair.slot as usize).and_then(Option::take) {
            self.interfaces[closed.interface].pool.give(closed.port);
            self.free.push(pair.slot);
        }
    }

    /// The socket of a row.
    pub(super) fn socket(&self, row: u32) -> Option<&UdpSocket> {
        self.pairs.get(row as usize / 2)?.as_ref().map(|pair| &pair.sockets[row as usize & 1])
    }

    pub(super) fn pair_mut(&mut self, slot: u32) -> Option<&mut Pair> {
        self.pairs.get_mut(slot as usize)?.as_mut()
    }

    /// Pairs that are free, those ready to be taken among them, and all that there are.
    pub(super) fn counts(&self) -> (u64, u64) {
        let served = || self.interfaces.iter().filter(|interface| !interface.ready.is_empty());
        let free: usize = served().map(|interface| interface.pool.len() + interface.ready.iter().map(|ready| ready.len()).sum::<usize>()).sum();
        let pooled: usize = served().map(|interface| interface.pool.len()).sum();
        (free as u64, (pooled + self.pairs.len() - self.free.len()) as u64)
    }
}

fn bound(address: IpAddr, port: u16, dscp: u8) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    if dscp > 0 {
        // The class stands in the upper six bits (RFC 2474).
        let (level, name) = if address.is_ipv6() { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
        set_option(&socket, level, name, i32::from(dscp) << 2)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_ready_before_they_are_asked_for_and_come_back() {
        let mut sockets = Sockets::new(46, 2);
        let queue = Arc::new(Mailbox::new(2));
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        // Somebody else has one of them.
        let taken = UdpSocket::bind((local, 0)).unwrap();
        let first = taken.local_addr().unwrap().port() & !1;
        let (first, last) = (first.clamp(2_048, 65_000), first.clamp(2_048, 65_000) + 7);
        sockets.serve(local, PortPool::new(first, last, 0, 1, 3), vec![Arc::clone(&queue)]).unwrap();
        let pair = queue.take().unwrap().take();
        assert_ne!(pair.port, taken.local_addr().unwrap().port() & !1);
        assert_eq!(sockets.socket(pair.slot * 2 + 1).unwrap().local_addr().unwrap().port(), pair.port + 1);
        sockets.fill();
        assert_eq!(queue.len(), 2);
        let (free, all) = sockets.counts();
        assert_eq!(all - free, 1, "one is in use");
        sockets.close(pair);
        sockets.close(pair);
        assert_eq!(sockets.counts(), (all, all));
        assert!(sockets.socket(pair.slot * 2).is_none());
    }

    #[test]
    fn what_came_before_a_port_was_taken_is_nobody_s_and_what_comes_then_is_the_call_s() {
        let mut sockets = Sockets::new(0, 1);
        let (local, queue): (IpAddr, _) = ("127.0.0.1".parse().unwrap(), Arc::new(Mailbox::new(1)));
        sockets.serve(local, PortPool::new(22_000, 22_039, 0, 1, 3), vec![Arc::clone(&queue)]).unwrap();
        let ready = queue.take().unwrap();
        let (from, to) = (UdpSocket::bind((local, 0)).unwrap(), SocketAddr::new(local, ready.pair.port));
        from.send_to(b"stale", to).unwrap();
        let pair = ready.take();
        from.send_to(b"early", to).unwrap();
        let mut buffer = [0; 9];
        let own = sockets.socket(pair.slot * 2).unwrap();
        assert_eq!(own.recv(&mut buffer).map(|length| buffer[..length].to_vec()).unwrap(), b"early");
        assert!(own.recv(&mut buffer).is_err());
    }

    #[test]
    fn an_address_that_is_not_here_is_told() {
        let mut sockets = Sockets::new(0, 2);
        let error = sockets.serve("192.0.2.77".parse().unwrap(), PortPool::new(30_000, 30_009, 0, 1, 3), vec![Arc::new(Mailbox::new(2))]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(sockets.counts(), (0, 0));
    }

    #[test]
    fn an_address_that_is_withdrawn_leaves_no_socket_and_may_come_back() {
        let mut sockets = Sockets::new(0, 2);
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let pool = || PortPool::new(21_000, 21_039, 0, 1, 3);
        let queue = Arc::new(Mailbox::new(2));
        sockets.serve(local, pool(), vec![Arc::clone(&queue)]).unwrap();
        let (_, all) = sockets.counts();
        let held = queue.take().unwrap().take();
        sockets.withdraw(local);
        assert_eq!((queue.len(), sockets.counts(), sockets.socket(held.slot * 2).is_some()), (0, (0, 1), true));
        sockets.fill();
        sockets.close(held);
        assert_eq!(sockets.counts(), (0, 0));
        sockets.serve(local, pool(), vec![queue]).unwrap();
        assert_eq!(sockets.counts(), (all, all));
    }
}
