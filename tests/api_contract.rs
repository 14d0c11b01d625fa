//! The sixteen compatibility tests of the HTTP contract, against the service on scripted models.

mod api_support;

use std::cell::Cell;

use api_support::contract::{Api, Pictures, TESTS};
use api_support::{Bench, LAN, jpeg};
use facelatch::recognition::scripted::Face;

fn run_all(bench: &Bench, has_liveness: bool) {
    let send = |request| bench.send(request, LAN).response;
    let pictures = Pictures {
        alice: jpeg(&[Face::live(1)]),
        alice_again: jpeg(&[Face::live(1).at(100, 200, 180)]),
        bob: jpeg(&[Face::live(2)]),
        carol: jpeg(&[Face::live(3)]),
        nobody: jpeg(&[]),
        group: jpeg(&[
            Face::live(4).at(10, 20, 150),
            Face::live(5).at(250, 20, 160),
            Face::live(6).at(150, 300, 170),
        ]),
        group_faces: 3,
    };
    let key = bench.admin.clone();
    let api = Api { send: &send, key, has_liveness, pictures, used_names: Cell::new(0) };
    for (name, test) in TESTS {
        eprintln!("contract: {name}");
        test(&api);
    }
}

#[test]
fn the_contract_holds_with_liveness_models() {
    run_all(&Bench::new(), true);
}

#[test]
fn the_contract_holds_without_liveness_models() {
    run_all(&Bench::without_liveness(), false);
}
