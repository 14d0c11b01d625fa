//! The gallery's figures: 1:N and N:N search, one change among many people, building, and memory.
//!
//! `cargo bench --bench gallery`; the memory lines come first, on standard error.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use criterion::BatchSize;
use criterion::BenchmarkId;
use criterion::Criterion;
use criterion::Throughput;
use criterion::criterion_group;
use criterion::criterion_main;
use facelatch::clock::UtcTime;
use facelatch::face::template::Template;
use facelatch::gallery::Gallery;
use facelatch::gallery::names::PersonId;
use facelatch::gallery::packed::PackedTemplates;
use facelatch::gallery::packed::Probe;
use facelatch::gallery::person::EmbeddingModelId;
use facelatch::gallery::person::FaceStorageType;
use facelatch::gallery::person::Person;
use facelatch::gallery::person::Reference;
use facelatch::gallery::ranking::SearchOptions;

/// About the cosine of a false match rate of 1e-4 for the default model.
const COSINE_MIN: f32 = 0.4;

/// Reproducible numbers from -1 to 1, about normally distributed.
struct Source(u64);

impl Source {
    fn next(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..4 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            sum += (self.0 >> 40) as f32 / (1 << 24) as f32 - 0.5;
        }
        sum / 2.0
    }

    fn template(&mut self, dimension: usize) -> Template {
        let values: Vec<f32> = (0..dimension).map(|_| self.next()).collect();
        Template::from_embedding(&values).expect("random numbers are not all zero")
    }
}

fn model() -> EmbeddingModelId {
    EmbeddingModelId("0123456789abcdef".to_string())
}

fn person(number: usize, template: Template) -> Arc<Person> {
    Arc::new(Person {
        // Scattered, as ids of other systems are.
        id: PersonId::new(&format!("{:08x}", (number as u32).wrapping_mul(0x9e37_79b1)))
            .expect("hex digits are an id"),
        name: format!("Person number {number}"),
        metadata: BTreeMap::new(),
        storage: FaceStorageType::NoStorage,
        eye_ratio: None,
        references: vec![Reference { template, model: model() }],
        created: UtcTime::from_millis(0),
        updated: UtcTime::from_millis(0),
    })
}

fn people(count: usize, dimension: usize) -> Vec<Arc<Person>> {
    let mut source = Source(0x2545_f491_4f6c_dd1d);
    (0..count).map(|number| person(number, source.template(dimension))).collect()
}

fn gallery(count: usize, dimension: usize) -> Gallery {
    Gallery::new(model(), dimension).with_persons(&people(count, dimension))
}

/// Resident memory of this process in bytes; 0 where the kernel does not tell.
fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn memory(_: &mut Criterion) {
    const PEOPLE: usize = 100_000;
    const BATCH: usize = 10_000;
    let before = resident_bytes();
    let mut gallery = Gallery::new(model(), 128);
    let mut source = Source(1);
    // In batches, so that the records on their way in count little.
    for first in (0..PEOPLE).step_by(BATCH) {
        let batch: Vec<_> =
            (first..first + BATCH).map(|number| person(number, source.template(128))).collect();
        gallery = gallery.with_persons(&batch);
    }
    let grown = resident_bytes().saturating_sub(before);
    eprintln!(
        "memory of {PEOPLE} people with one template of 128: {} bytes each, {} of them templates",
        grown / PEOPLE,
        gallery.template_bytes() / PEOPLE,
    );
}

fn kernel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coarse dot products, 256 rows");
    for dimension in [128, 256, 512] {
        let mut source = Source(3);
        let mut packed = PackedTemplates::with_capacity(dimension, 256);
        (0..256).for_each(|_| packed.push(&source.template(dimension)));
        let probe = Probe::new(&source.template(dimension));
        let mut dots = Vec::new();
        group.throughput(Throughput::Elements(256 * dimension as u64));
        group.bench_function(BenchmarkId::from_parameter(dimension), |bencher| {
            bencher.iter(|| {
                black_box(&packed).coarse_dots(black_box(&probe), &mut dots);
                black_box(&dots);
            });
        });
    }
    group.finish();
}

fn search(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1:N");
    for (count, dimension) in
        [(1000, 128), (10_000, 128), (100_000, 128), (10_000, 256), (10_000, 512)]
    {
        let gallery = gallery(count, dimension);
        let probe = Source(5).template(dimension);
        group.throughput(Throughput::Elements(count as u64));
        for (what, cosine_min, results_max) in
            [("best", COSINE_MIN, 1), ("500 best, no threshold", -1.0, 500)]
        {
            let options = SearchOptions { cosine_min, results_max };
            let id = BenchmarkId::new(what, format!("{count} x {dimension}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| black_box(&gallery).search(black_box(&probe), options));
            });
        }
    }
    group.finish();
}

fn search_many(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("8:N");
    for count in [10_000, 100_000] {
        let gallery = gallery(count, 128);
        let mut source = Source(7);
        let probes: Vec<_> = (0..8).map(|_| source.template(128)).collect();
        let options = SearchOptions { cosine_min: COSINE_MIN, results_max: 1 };
        group.throughput(Throughput::Elements(8 * count as u64));
        group.bench_function(BenchmarkId::new("one walk", count), |bencher| {
            bencher.iter(|| black_box(&gallery).search_many(black_box(&probes), options));
        });
        group.bench_function(BenchmarkId::new("one by one", count), |bencher| {
            bencher.iter(|| -> usize {
                probes.iter().map(|probe| black_box(&gallery).search(probe, options).len()).sum()
            });
        });
    }
    group.finish();
}

fn change(criterion: &mut Criterion) {
    const PEOPLE: usize = 100_000;
    let people = people(PEOPLE, 128);
    let base = Gallery::new(model(), 128).with_persons(&people);
    let mut group = criterion.benchmark_group("one change in 100000");
    // Each time another person, so that the leaf is not in the cache, and the old snapshot is
    // dropped as it is in service.
    let mut number = 0;
    let mut next = move || {
        number = (number + 7919) % PEOPLE;
        number
    };
    let mut gallery = base.clone();
    group.bench_function("replace", |bencher| {
        bencher.iter(|| gallery = gallery.with_persons(&people[next()..][..1]));
    });
    let mut gallery = base.clone();
    group.bench_function("remove and add", |bencher| {
        bencher.iter(|| {
            let person = &people[next()..][..1];
            gallery = gallery.without_person(&person[0].id).with_persons(person);
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    group.bench_function(BenchmarkId::from_parameter(PEOPLE), |bencher| {
        let empty = Gallery::new(model(), 128);
        bencher.iter_batched(|| (), |()| empty.with_persons(&people), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, memory, kernel, search, search_many, change);
criterion_main!(benches);
