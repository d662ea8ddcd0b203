//! What a datagram is by its first bytes (RFC 7983), and the head of an RTP packet (RFC 3550 section 5.1).

use crate::command::StreamKind;

/// The head of an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RtpHead {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) source: u32,
}

impl RtpHead {
    /// The head of an RTP packet; `None` for RTCP, also where both share a port (RFC 5761 section 4), and for anything else.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [flags, kind, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3, ..] = *bytes else { return None };
        if flags >> 6 != 2 || (64..96).contains(&(kind & 0x7f)) {
            return None;
        }
        Some(Self { sequence: u16::from_be_bytes([s0, s1]), timestamp: u32::from_be_bytes([t0, t1, t2, t3]), source: u32::from_be_bytes([c0, c1, c2, c3]) })
    }
}

/// Whether a datagram may open a stream of this kind. A scanner's bytes may not, whatever address they have.
pub(crate) fn is_plausible(kind: StreamKind, bytes: &[u8]) -> bool {
    let rtp = bytes.len() >= 8 && bytes.first().is_some_and(|first| first >> 6 == 2);
    match kind {
        StreamKind::Rtp => rtp,
        // STUN and DTLS come before any RTP.
        StreamKind::RtpOverDtls => rtp || matches!(bytes.first(), Some(0..=3 | 20..=63)),
        StreamKind::Datagrams => !bytes.is_empty(),
    }
}

/// Whether a datagram of somebody who is known may pass: media, STUN, DTLS, ZRTP or an empty one that keeps a way open, and no text. Else a
/// phone that describes a place of signalling could have its requests delivered there from our address.
pub(crate) fn may_pass(kind: StreamKind, bytes: &[u8]) -> bool {
    kind == StreamKind::Datagrams || matches!(bytes.first(), None | Some(0..=3 | 16..=63 | 128..=191))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_and_rtcp_are_told_apart_on_one_port() {
        let packet = |kind: u8| [0x80, kind, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7];
        assert_eq!(RtpHead::read(&packet(0)), Some(RtpHead { sequence: 0x102, timestamp: 9, source: 7 }));
        assert!(RtpHead::read(&packet(0x80 | 96)).is_some(), "marker bit and a dynamic type");
        for rtcp in 200..=207 {
            assert_eq!(RtpHead::read(&packet(rtcp)), None, "{rtcp}");
        }
        assert_eq!(RtpHead::read(&packet(0)[..11]), None);
        assert_eq!(RtpHead::read(&[0x40; 12]), None);
    }

    #[test]
    fn only_what_a_stream_may_begin_with_opens_it() {
        let rtp = [0x80; 12];
        assert!(is_plausible(StreamKind::Rtp, &rtp) && !is_plausible(StreamKind::Rtp, &[0; 20]) && !is_plausible(StreamKind::Rtp, &rtp[..4]));
        assert!(is_plausible(StreamKind::RtpOverDtls, &[22, 254, 253]) && is_plausible(StreamKind::RtpOverDtls, &[0, 1, 0, 0]));
        assert!(!is_plausible(StreamKind::RtpOverDtls, b"GET /"));
        assert!(is_plausible(StreamKind::Datagrams, &[0]) && !is_plausible(StreamKind::Datagrams, &[]));
        for kind in [StreamKind::Rtp, StreamKind::RtpOverDtls] {
            for text in ["INVITE sip:a@b SIP/2.0\r\n", "SIP/2.0 200 OK\r\n", "\r\n\r\nBYE sip:a SIP/2.0\r\n", "get / HTTP/1.1"] {
                assert!(!may_pass(kind, text.as_bytes()), "{text}");
            }
            assert!([&rtp[..], &[0, 1, 0, 0], &[22, 254], &[16, 0, b'Z', b'R'], &[]].into_iter().all(|bytes| may_pass(kind, bytes)));
        }
        assert!(may_pass(StreamKind::Datagrams, b"text"), "T.38 has no head of its own");
    }
}
