//! The floor of a media relay: two ports a stream, what comes to one leaves by the other, nothing is looked at.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Ports of one relay: stream `n` has `first + 2n`, which faces the caller, and the one above it, which faces the callee.
pub(crate) struct Ports {
    sockets: Vec<UdpSocket>,
    places: [SocketAddr; 2],
}

impl Ports {
    pub(crate) fn bind(first: u16, streams: u16, caller: SocketAddr, callee: SocketAddr) -> io::Result<Self> {
        let sockets = (0..streams * 2).map(|number| UdpSocket::bind((Ipv4Addr::LOCALHOST, first + number))).collect::<io::Result<Vec<_>>>()?;
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        Ok(Self { sockets, places: [caller, callee] })
    }

    /// Where that which comes to socket `index` leaves, and where to.
    fn way(&self, index: usize) -> (usize, SocketAddr) {
        (index ^ 1, self.places[(index & 1) ^ 1])
    }
}

/// One wake-up for what is ready, one system call to read a datagram and one to send it. What is left over wakes again.
pub(crate) fn epoll(ports: &Ports) -> io::Result<()> {
    // SAFETY: makes a descriptor and touches no memory.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    for (index, socket) in ports.sockets.iter().enumerate() {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
        // SAFETY: both descriptors are open, the event lives until after the call.
        if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    println!("ready");
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut buffer = [0; 2_048];
    loop {
        // SAFETY: the array is live and of the stated size.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, -1) };
        for event in &events[..count.max(0) as usize] {
            let index = event.u64 as usize;
            let (out, to) = ports.way(index);
            if let Ok((length, _)) = ports.sockets[index].recv_from(&mut buffer) {
                let _ = ports.sockets[out].send_to(&buffer[..length], to);
            }
        }
    }
}

const BUFFERS: u16 = 4_096;
const BUFFER: usize = 2_048;
const GROUP: u16 = 1;

/// What a datagram in flight needs until the kernel has sent it.
struct Sending {
    header: libc::msghdr,
    vector: libc::iovec,
    to: socket2::SockAddr,
}

/// Receives that stay armed, sends handed over by the batch: one system call for all that is ready.
pub(crate) fn uring(ports: &Ports) -> io::Result<()> {
    let mut ring: IoUring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(16_384).build(4_096)?;
    let files: Vec<i32> = ports.sockets.iter().map(AsRawFd::as_raw_fd).collect();
    ring.submitter().register_files(&files)?;
    let mut memory = vec![0u8; usize::from(BUFFERS) * BUFFER];
    let places = ports.places.map(socket2::SockAddr::from);
    // SAFETY: all-zero is a valid value of these plain structures of the system.
    let mut sending: Vec<Sending> =
        (0..BUFFERS).map(|_| unsafe { Sending { header: std::mem::zeroed(), vector: std::mem::zeroed(), to: places[0].clone() } }).collect();
    // SAFETY: as above.
    let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
    template.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
    let give = |memory: &mut [u8], id: u16, count: u16| {
        let start = memory[usize::from(id) * BUFFER..].as_mut_ptr();
        opcode::ProvideBuffers::new(start, BUFFER as i32, count, GROUP, id).build().flags(squeue::Flags::SKIP_SUCCESS).user_data(u64::MAX)
    };
    let mut queue: Vec<squeue::Entry> = vec![give(&mut memory, 0, BUFFERS)];
    let header = &raw const template;
    let arm = |index: usize| opcode::RecvMsgMulti::new(Fixed(index as u32), header, GROUP).build().user_data(index as u64);
    queue.extend((0..files.len()).map(arm));
    println!("ready");
    let mut done: Vec<(u64, i32, u32)> = Vec::new();
    loop {
        for entry in queue.drain(..) {
            // SAFETY: what the entries point to (buffers, `template`, `sending`) lives as long as this function.
            while unsafe { ring.submission().push(&entry) }.is_err() {
                ring.submit()?;
            }
        }
        ring.submit_and_wait(1)?;
        done.extend(ring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        for (data, result, flags) in done.drain(..) {
            if data == u64::MAX {
                continue;
            }
            if data >= 1 << 32 {
                // Sent: the buffer serves again.
                queue.push(give(&mut memory, (data >> 32) as u16 - 1, 1));
                continue;
            }
            let index = data as usize;
            if !cqueue::more(flags) {
                queue.push(arm(index));
            }
            let Some(id) = cqueue::buffer_select(flags).filter(|_| result >= 0) else { continue };
            let bytes = &memory[usize::from(id) * BUFFER..][..result as usize];
            let Ok(message) = RecvMsgOut::parse(bytes, &template) else { continue };
            let (out, _) = ports.way(index);
            let place = &mut sending[usize::from(id)];
            place.to.clone_from(&places[(index & 1) ^ 1]);
            place.vector = libc::iovec { iov_base: message.payload_data().as_ptr().cast_mut().cast(), iov_len: message.payload_data().len() };
            place.header.msg_name = place.to.as_ptr().cast_mut().cast();
            place.header.msg_namelen = place.to.len();
            place.header.msg_iov = &mut place.vector;
            place.header.msg_iovlen = 1;
            queue.push(opcode::SendMsg::new(Fixed(out as u32), &place.header).build().user_data((u64::from(id) + 1) << 32));
        }
    }
}
