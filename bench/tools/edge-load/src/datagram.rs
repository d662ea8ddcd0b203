//! A UDP socket that reads and writes many datagrams at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

const BATCH: usize = 64;
const DATAGRAM: usize = 4_096;
/// A control message with the address that a datagram comes from: its head, and what it says rounded up to whole words.
type Control = [u64; 4];

pub(crate) struct Datagrams {
    socket: UdpSocket,
    buffers: Vec<u8>,
    waiting: Vec<(Vec<u8>, SocketAddr, Option<Ipv4Addr>)>,
}

impl Datagrams {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE, libc::SO_RCVBUF, libc::SO_SNDBUF] {
            let size: libc::c_int = 8 << 20;
            // SAFETY: the option value is a live c_int of the given size. Only root may force; the others get what they get.
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, std::ptr::from_ref(&size).cast(), size_of::<libc::c_int>() as u32) };
        }
        Ok(Self { socket, buffers: vec![0; BATCH * DATAGRAM], waiting: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: Vec<u8>, to: SocketAddr) {
        self.waiting.push((bytes, to, None));
    }

    /// Sends from an address of this machine; the socket must be bound to none of its own.
    pub(crate) fn send_from(&mut self, bytes: Vec<u8>, from: Ipv4Addr, to: SocketAddr) {
        self.waiting.push((bytes, to, Some(from)));
    }

    pub(crate) fn flush(&mut self, spare: &mut Vec<Vec<u8>>) {
        let mut start = 0;
        while start < self.waiting.len() {
            let end = (start + BATCH).min(self.waiting.len());
            let mut addresses: Vec<libc::sockaddr_in> = self.waiting[start..end].iter().map(|(_, to, _)| address(*to)).collect();
            let mut controls: Vec<Option<Control>> = self.waiting[start..end].iter().map(|(.., from)| from.map(control)).collect();
            let mut vectors: Vec<libc::iovec> =
                self.waiting[start..end].iter().map(|(bytes, ..)| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }).collect();
            let mut headers: Vec<libc::mmsghdr> = addresses.iter_mut().zip(&mut vectors).map(|(name, vector)| header(name, vector)).collect();
            for (header, control) in headers.iter_mut().zip(&mut controls) {
                if let Some(control) = control {
                    header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                    header.msg_hdr.msg_controllen = size_of::<Control>();
                }
            }
            // SAFETY: every header points to an address, vector, payload and control message that live until after the call.
            let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, 0) };
            // An error of an earlier datagram is reported here; what was to be sent now goes out at the next try.
            start += if sent > 0 { sent as usize } else { usize::from(io::Error::last_os_error().raw_os_error() != Some(libc::ECONNREFUSED)) };
        }
        for (mut bytes, ..) in self.waiting.drain(..) {
            bytes.clear();
            spare.push(bytes);
        }
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Hands what waits to `take`; returns how many datagrams that were.
    pub(crate) fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> usize {
        let mut vectors: Vec<libc::iovec> =
            self.buffers.chunks_mut(DATAGRAM).map(|b| libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: DATAGRAM }).collect();
        // SAFETY: all-zero is a valid mmsghdr.
        let mut headers: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| unsafe { libc::mmsghdr { msg_hdr: libc::msghdr { msg_iov: vector, msg_iovlen: 1, ..std::mem::zeroed() }, msg_len: 0 } })
            .collect();
        // SAFETY: every header points to a vector and buffer that live until after the call.
        let count = unsafe { libc::recvmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as u32, libc::MSG_DONTWAIT, std::ptr::null_mut()) };
        let count = count.max(0) as usize;
        for (index, header) in headers[..count].iter().enumerate() {
            take(&self.buffers[index * DATAGRAM..index * DATAGRAM + (header.msg_len as usize).min(DATAGRAM)]);
        }
        count
    }
}

fn address(to: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(v4) = to else { return address(SocketAddrV4::new([127, 0, 0, 1].into(), to.port()).into()) };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn header(name: &mut libc::sockaddr_in, vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all-zero is a valid mmsghdr.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
    header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}

/// `IP_PKTINFO` with an address to send from, as ip(7) and cmsg(3) lay it out on 64 bits.
fn control(from: Ipv4Addr) -> Control {
    let head = size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>();
    let kind = u64::from(libc::IPPROTO_IP as u32) | u64::from(libc::IP_PKTINFO as u32) << 32;
    [head as u64, kind, u64::from(u32::from_ne_bytes(from.octets())) << 32, 0]
}
