//! Time of looking a number up among a million rules: `cargo bench -p micro --bench lookup`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use routing::{Builder, LoadOptions, Table};

const RULES: u32 = 1_000_000;
const GATEWAYS: u64 = 1_000;
/// More than the caches of the processor hold.
const EVICTED: usize = 64 << 20;
/// Lookups between two evictions: few, since each warms the upper nodes for the next.
const COLD_BATCH: usize = 16;
const DIGITS: u64 = 11;

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn digits(&mut self, length: u64) -> String {
        (0..length).map(|_| char::from(b'0' + self.next(10) as u8)).collect()
    }
}

fn table() -> Table {
    let mut builder = Builder::new(LoadOptions::default(), None);
    let mut random = Random(1);
    for gateway in 0..GATEWAYS {
        builder.gateways(format!("gw{gateway}\x1f0\x1f192.0.2.1\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1e").as_bytes());
    }
    for rule in 0..RULES {
        let length = 3 + random.next(8);
        let prefix = random.digits(length);
        let [a, b, c] = [(); 3].map(|()| random.next(GATEWAYS));
        builder.rules(format!("{rule}\x1f0\x1f{prefix}\x1f\x1f0\x1f\x1fgw{a},gw{b},gw{c}\x1fN\x1f\x1f\x1e").as_bytes());
    }
    builder.finish().table
}

fn lookup(criterion: &mut Criterion) {
    let table = table();
    let mut random = Random(2);
    // Side by side, since a number that is looked up has just come with its message: it is in the cache.
    let mut digits: Vec<u8> = Vec::new();
    (0..1_000_000).for_each(|_| digits.extend_from_slice(random.digits(DIGITS).as_bytes()));
    let mut next = digits.chunks_exact(DIGITS as usize).cycle();
    criterion.bench_function("lookup_warm", |b| b.iter(|| table.find(0, next.next().unwrap_or_default(), black_box(0))));
    let mut evicted = vec![0_u8; EVICTED];
    criterion.bench_function("lookup_cold", |b| {
        b.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                evicted.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
                black_box(&evicted);
                let batch = left.min(COLD_BATCH as u64);
                let begun = Instant::now();
                for _ in 0..batch {
                    black_box(table.find(0, next.next().unwrap_or_default(), black_box(0)));
                }
                spent += begun.elapsed();
                left -= batch;
            }
            spent
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = lookup
}
criterion_main!(benches);
