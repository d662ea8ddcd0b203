//! The floor: forwards what it gets between two places without looking at it. What it costs, the kernel alone charges.
//!
//! `floors udp LISTEN CALLER CALLEE`: what comes from the callee goes to the caller, all else to the callee.
//! `floors answer LISTEN`: what comes goes back with another first line, one datagram in, one out.
//! `floors send LISTEN TO RATE`: sends so many datagrams of four bytes a second, each by itself.
//! `floors tcp LISTEN CALLEE`: every connection is joined with one of its own to the callee.
//! `floors relay epoll|uring FIRST_PORT STREAMS CALLER CALLEE`: relays media between ports of 127.0.0.1, two a stream.
//! `floors wake RATE SECONDS`: asks another process so often, and prints how long it took to be answered.
//! `floors sink LISTEN`: takes what comes and does nothing with it.
//! `floors flood TO RATE SECONDS SOURCES`: sends so many requests a second, 0 for all that it can, from so many addresses.

mod flood;
mod relay;
mod wake;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "relay") {
        return told(media(&arguments));
    }
    let count = |index: usize| arguments.get(index).and_then(|text| text.parse::<u64>().ok());
    match (arguments.first().map(String::as_str), count(1), count(2)) {
        (Some("wake"), Some(rate), Some(seconds)) => return told(wake::wake(rate, seconds)),
        (Some("echo"), None, None) => return told(wake::echo()),
        _ => {}
    }
    let place = |index: usize| arguments.get(index).and_then(|text| text.parse::<SocketAddr>().ok());
    let number = |index: usize, otherwise: u32| arguments.get(index).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let done = match (arguments.first().map(String::as_str), place(1), place(2), place(3)) {
        (Some("udp"), Some(listen), Some(caller), Some(callee)) => udp(listen, caller, callee),
        (Some("answer"), Some(listen), None, None) => answer(listen),
        (Some("send"), Some(listen), Some(to), None) => send(listen, to, arguments.get(3).and_then(|text| text.parse().ok()).unwrap_or(1_000)),
        (Some("tcp"), Some(listen), Some(callee), None) => tcp(listen, callee),
        (Some("sink"), Some(listen), None, None) => flood::sink(listen),
        (Some("flood"), Some(to), None, None) => flood::flood(to, number(2, 0), u64::from(number(3, 5)), number(4, 1).max(1)),
        _ => Err(io::Error::other(
            "usage: floors udp LISTEN CALLER CALLEE | floors answer LISTEN | floors send LISTEN TO RATE | floors tcp LISTEN CALLEE | floors wake RATE SECONDS | floors sink LISTEN | floors flood TO RATE SECONDS SOURCES",
        )),
    };
    told(done)
}

fn media(arguments: &[String]) -> io::Result<()> {
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u16>().ok());
    let place = |index: usize| arguments.get(index).and_then(|text| text.parse::<SocketAddr>().ok());
    let (Some(first), Some(streams), Some(caller), Some(callee)) = (number(2), number(3), place(4), place(5)) else {
        return Err(io::Error::other("usage: floors relay epoll|uring FIRST_PORT STREAMS CALLER CALLEE"));
    };
    let ports = relay::Ports::bind(first, streams, caller, callee)?;
    if arguments.get(1).is_some_and(|kind| kind == "uring") { relay::uring(&ports) } else { relay::epoll(&ports) }
}

fn told(done: io::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floors: {error}");
            ExitCode::FAILURE
        }
    }
}

fn udp(listen: SocketAddr, caller: SocketAddr, callee: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    println!("ready");
    let mut buffer = [0; 65_535];
    loop {
        // A refused datagram shows up as the error of a later call; the load tells what was lost.
        let Ok((length, source)) = socket.recv_from(&mut buffer) else { continue };
        let to = if source == callee { caller } else { callee };
        let _ = socket.send_to(&buffer[..length], to);
    }
}

fn answer(listen: SocketAddr) -> io::Result<()> {
    const LINE: &[u8] = b"SIP/2.0 200 OK";
    let socket = UdpSocket::bind(listen)?;
    println!("ready");
    let mut buffer = [0; 65_535];
    loop {
        let Ok((length, source)) = socket.recv_from(&mut buffer[LINE.len()..]) else { continue };
        let end = LINE.len() + length;
        let Some(at) = buffer[LINE.len()..end].iter().position(|byte| *byte == b'\r') else { continue };
        buffer[at..at + LINE.len()].copy_from_slice(LINE);
        let _ = socket.send_to(&buffer[at..end], source);
    }
}

fn send(listen: SocketAddr, to: SocketAddr, rate: u64) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    println!("ready");
    // A hundredth of a second's worth at a time, as a sender that paces itself does.
    let start = Instant::now();
    let mut sent = 0u64;
    loop {
        let due = start.elapsed().as_micros() as u64 * rate / 1_000_000;
        while sent < due {
            let _ = socket.send_to(b"\r\n\r\n", to);
            sent += 1;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn tcp(listen: SocketAddr, callee: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("ready");
    loop {
        let (near, _) = listener.accept()?;
        let far = TcpStream::connect(callee)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
            thread::spawn(move || {
                let mut buffer = [0; 65_535];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                // A thread that ends takes its account of processor time along, and that is what is measured here.
                loop {
                    thread::park();
                }
            });
        }
    }
}
