//! Time of the units: `cargo bench -p micro`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use syntax::{Edits, Head, HeaderName, Limits, Message, parse, sdp_lines};

fn units(criterion: &mut Criterion) {
    let bytes = micro::INVITE.as_bytes();
    let mut head = Box::new(Head::default());
    criterion.bench_function("parse of an 800-byte INVITE", |b| b.iter(|| micro::parse_invite(black_box(bytes), &mut head)));
    criterion.bench_function("lines of its SDP", |b| b.iter(|| sdp_lines(black_box(bytes), head.body).count()));
    let mut parsed = Head::default();
    if parse(bytes, &Limits::STANDARD, &mut parsed).is_ok() {
        let message = Message::new(bytes, &parsed);
        let (mut edits, mut out) = (Edits::default(), Vec::new());
        criterion.bench_function("a Via on top", |b| {
            b.iter(|| {
                edits.clear();
                if let Some(slot) = message.first(HeaderName::Via) {
                    edits.insert_with(slot.line.start(), |text| text.extend_from_slice(b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK0\r\n"));
                }
                out.clear();
                edits.apply(black_box(&message), &mut out);
                out.len()
            });
        });
    }
    let mut rig = micro::rig();
    let mut number = 0;
    criterion.bench_function("a call through the edge, test peers included", |b| {
        b.iter(|| {
            number += 1;
            micro::relay_call(&mut rig, number)
        });
    });
}

criterion_group!(benches, units);
criterion_main!(benches);
