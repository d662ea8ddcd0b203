//! UDP in batches: one system call for many datagrams, and the errors that ICMP reports.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_int, c_void, iovec, mmsghdr, msghdr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// Largest datagram.
const DATAGRAM: usize = 65_535;

/// Buffers for one batch of datagrams received.
pub(crate) struct ReceiveBatch {
    buffers: Vec<u8>,
    addresses: Vec<sockaddr_storage>,
    vectors: Vec<iovec>,
    headers: Vec<mmsghdr>,
    size: usize,
}

// SAFETY: the raw pointers inside point into the vectors of the same value, which move with it.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    pub(crate) fn new(size: usize) -> Self {
        // SAFETY: all-zero is a valid value of these plain structures of the system.
        let (addresses, vectors, headers) = unsafe { (vec![zeroed(); size], vec![zeroed(); size], vec![zeroed(); size]) };
        Self { buffers: vec![0; size * DATAGRAM], addresses, vectors, headers, size }
    }

    /// Receives what waits, up to the size of the batch, without blocking.
    pub(crate) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        for index in 0..self.size {
            self.vectors[index] = iovec { iov_base: self.buffers[index * DATAGRAM..].as_mut_ptr().cast(), iov_len: DATAGRAM };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.addresses[index]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_iov = &mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_flags = 0;
        }
        // SAFETY: every header points to a live address, vector and buffer of its own, set just above.
        let count = unsafe { libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), self.size as u32, libc::MSG_DONTWAIT, ptr::null_mut()) };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
    }

    /// One datagram of the last batch with its source; `None` for one that was cut or has a strange address.
    pub(crate) fn datagram(&self, index: usize) -> Option<(SocketAddr, &[u8])> {
        let header = self.headers.get(index)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let bytes = self.buffers.get(index * DATAGRAM..index * DATAGRAM + header.msg_len as usize)?;
        Some((to_address(&self.addresses[index])?, bytes))
    }

    /// How many datagrams one batch holds.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

/// Headers for one batch of datagrams to send.
pub(crate) struct SendBatch {
    /// Of either family, in no more room than the larger one takes: a `sockaddr_storage` would be four times as long.
    addresses: Vec<sockaddr_in6>,
    vectors: Vec<iovec>,
    headers: Vec<mmsghdr>,
    took_error: bool,
}

// SAFETY: as for `ReceiveBatch`; pointers to payloads live only during one call of `send`.
unsafe impl Send for SendBatch {}

impl SendBatch {
    pub(crate) fn new(size: usize) -> Self {
        // SAFETY: all-zero is a valid value of these plain structures of the system.
        unsafe { Self { addresses: vec![zeroed(); size], vectors: vec![zeroed(); size], headers: vec![zeroed(); size], took_error: false } }
    }

    /// Whether a call since the last question was told of an earlier datagram's ICMP error: nothing else will tell of it.
    pub(crate) fn took_error(&mut self) -> bool {
        std::mem::take(&mut self.took_error)
    }

    /// Sends `datagrams`; what the kernel refuses is handed to `refused` with the reason, and the rest goes on.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &impl AsRawFd,
        datagrams: &mut dyn Iterator<Item = (SocketAddr, &'a [u8])>,
        refused: &mut dyn FnMut(&[u8], io::Error),
    ) {
        loop {
            let mut count = 0;
            while count < self.headers.len() {
                let Some((address, bytes)) = datagrams.next() else { break };
                let length = from_address(address, &mut self.addresses[count]);
                self.vectors[count] = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                let header: &mut msghdr = &mut self.headers[count].msg_hdr;
                header.msg_name = ptr::from_mut(&mut self.addresses[count]).cast();
                header.msg_namelen = length;
                header.msg_iov = &mut self.vectors[count];
                header.msg_iovlen = 1;
                count += 1;
            }
            if count == 0 {
                return;
            }
            self.flush(socket, count, refused);
        }
    }

    fn flush(&mut self, socket: &impl AsRawFd, count: usize, refused: &mut dyn FnMut(&[u8], io::Error)) {
        let mut sent = 0;
        let mut tries = 0;
        while sent < count {
            // SAFETY: headers from `sent` to `count` point to live addresses and payloads, which the caller's borrow keeps.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers[sent..].as_mut_ptr(), (count - sent) as u32, libc::MSG_DONTWAIT) };
            if done > 0 {
                sent += done as usize;
                tries = 0;
                continue;
            }
            let error = io::Error::last_os_error();
            // An ICMP error of an earlier datagram is reported by whatever call comes next: this one is not to blame.
            let earlier = matches!(error.raw_os_error(), Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EINTR));
            if earlier && tries < 2 {
                self.took_error = true;
                tries += 1;
                continue;
            }
            let vector = self.vectors[sent];
            // SAFETY: the vector was set from a slice that the caller's borrow keeps alive.
            let bytes = unsafe { std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len) };
            refused(bytes, error);
            sent += 1;
            tries = 0;
        }
    }
}

/// Asks the kernel to keep ICMP errors together with the datagram that caused them (IP_RECVERR).
pub(crate) fn report_errors(socket: &impl AsRawFd, v6: bool) -> io::Result<()> {
    let (level, name) = if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) } else { (libc::IPPROTO_IP, libc::IP_RECVERR) };
    set_option(socket, level, name, 1)
}

/// Sets a buffer beyond the system's maximum, which only root may.
pub(crate) fn force_buffer(socket: &impl AsRawFd, receive: bool, bytes: usize) -> bool {
    let name = if receive { libc::SO_RCVBUFFORCE } else { libc::SO_SNDBUFFORCE };
    set_option(socket, libc::SOL_SOCKET, name, bytes.min(c_int::MAX as usize / 2) as c_int).is_ok()
}

pub(crate) fn set_option(socket: &impl AsRawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the option value is a live c_int of the given size.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, ptr::from_ref(&value).cast::<c_void>(), size_of::<c_int>() as socklen_t) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes one datagram that ICMP reported as not delivered; `None` where none waits.
pub(crate) fn failed_datagram<'a>(socket: &impl AsRawFd, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut control = [MaybeUninit::<u64>::uninit(); 64];
    let mut vector = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut header: msghdr = unsafe { zeroed() };
    header.msg_iov = &mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points to a live buffer and control area, both writable and of the stated sizes.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if length < 0 { None } else { buffer.get(..length as usize) }
}

fn to_address(storage: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in lies here, and the storage is large enough for one.
            let v4 = unsafe { &*ptr::from_ref(storage).cast::<sockaddr_in>() };
            Some(SocketAddrV4::new(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)), u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 lies here, and the storage is large enough for one.
            let v6 = unsafe { &*ptr::from_ref(storage).cast::<sockaddr_in6>() };
            Some(SocketAddrV6::new(Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn from_address(address: SocketAddr, storage: &mut sockaddr_in6) -> socklen_t {
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: the storage is large enough and aligned for a sockaddr_in.
            let place = unsafe { &mut *ptr::from_mut(storage).cast::<sockaddr_in>() };
            place.sin_family = libc::AF_INET as _;
            place.sin_port = v4.port().to_be();
            place.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            size_of::<sockaddr_in>() as socklen_t
        }
        SocketAddr::V6(v6) => {
            storage.sin6_family = libc::AF_INET6 as _;
            storage.sin6_port = v6.port().to_be();
            storage.sin6_addr.s6_addr = v6.ip().octets();
            storage.sin6_flowinfo = 0;
            storage.sin6_scope_id = v6.scope_id();
            size_of::<sockaddr_in6>() as socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_go_out_and_come_in_by_the_batch() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = (UdpSocket::bind(host).unwrap(), UdpSocket::bind(host).unwrap());
            let to = b.local_addr().unwrap();
            let texts: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i; 1 + usize::from(i)]).collect();
            let mut refused = 0;
            SendBatch::new(8).send(&a, &mut texts.iter().map(|t| (to, t.as_slice())), &mut |_, _| refused += 1);
            let (mut batch, mut got) = (ReceiveBatch::new(16), Vec::new());
            while got.len() < 20 {
                let count = batch.receive(&b).unwrap();
                got.extend((0..count).map(|i| batch.datagram(i).map(|(from, bytes)| (from, bytes.to_vec())).unwrap()));
            }
            assert_eq!(refused, 0);
            assert!(got.iter().zip(&texts).all(|((from, bytes), text)| *from == a.local_addr().unwrap() && bytes == text));
        }
    }

    #[test]
    fn a_refused_datagram_comes_back_with_its_bytes() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        report_errors(&socket, false).unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        SendBatch::new(1).send(&socket, &mut std::iter::once((closed, &b"lost"[..])), &mut |_, _| {});
        let mut buffer = [0; 64];
        assert_eq!(failed_datagram(&socket, &mut buffer), Some(&b"lost"[..]));
    }
}
