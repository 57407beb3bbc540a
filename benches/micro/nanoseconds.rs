//! Nanoseconds of what a command passes on its way, by criterion.

mod commands;
mod work;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("micro");
    group.throughput(Throughput::Elements(work::PIPELINE as u64));
    for name in work::NAMES {
        let mut work = work::named(name);
        group.bench_function(*name, |bencher| bencher.iter(&mut work));
    }
    group.finish();
}

criterion_group!(benches, pieces);
criterion_main!(benches);
