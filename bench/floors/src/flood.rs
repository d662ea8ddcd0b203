//! Floods, and what taking one in costs at the least.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Datagrams between two looks at the clock.
const BURST: u32 = 64;

/// Takes what comes and does nothing with it.
pub(crate) fn sink(listen: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    println!("ready");
    let mut buffer = [0; 65_535];
    loop {
        // What fails was an ICMP error of nobody's.
        let _ = socket.recv_from(&mut buffer);
    }
}

/// Sends `rate` requests a second, or as many as can be where that is 0, from so many addresses of 127.3.0.0/16 in turn; prints how
/// many those were.
pub(crate) fn flood(to: SocketAddr, rate: u32, seconds: u64, sources: u32) -> io::Result<()> {
    let address = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 3, 0, 1)) + number);
    let sockets: Vec<(UdpSocket, Vec<u8>)> = (0..sources)
        .map(|number| {
            let socket = UdpSocket::bind((address(number), 0))?;
            socket.connect(to)?;
            let local = socket.local_addr()?;
            let text = format!(
                "OPTIONS sip:flood@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKflood{number}\r\nMax-Forwards: 70\r\nFrom: <sip:f@{to}>;tag=f\r\nTo: <sip:flood@{to}>\r\nCall-ID: flood-{number}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
            );
            Ok((socket, text.into_bytes()))
        })
        .collect::<io::Result<_>>()?;
    let (begun, mut sent, mut next) = (Instant::now(), 0_u64, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..BURST {
            let (socket, text) = &sockets[next];
            next = (next + 1) % sockets.len();
            // What the kernel does not take, or the far end refused, was sent all the same.
            let _ = socket.send(text);
            sent += 1;
        }
        if rate > 0 {
            let due = Duration::from_secs_f64(sent as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    println!("{sent}");
    Ok(())
}
