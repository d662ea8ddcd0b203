//! Asks the kernel from which local address a destination is reached.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use edge::Routes;

const KEEP: Duration = Duration::from_secs(30);
const LIMIT: usize = 4_096;

/// The kernel's routes, remembered for half a minute.
#[derive(Default)]
pub(crate) struct KernelRoutes {
    known: HashMap<IpAddr, (Instant, Option<IpAddr>)>,
}

impl Routes for KernelRoutes {
    fn source_for(&mut self, destination: IpAddr) -> Option<IpAddr> {
        if let Some((asked, source)) = self.known.get(&destination)
            && asked.elapsed() < KEEP
        {
            return *source;
        }
        if self.known.len() >= LIMIT {
            self.known.clear();
        }
        let source = ask(destination);
        self.known.insert(destination, (Instant::now(), source));
        source
    }
}

/// Connecting a datagram socket sends nothing; it only makes the kernel choose a route.
fn ask(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(destination, 5060)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}
