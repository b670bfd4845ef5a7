//! How fast commands start and their output arrives. Run with `--release -- --ignored --nocapture bench`.

#![expect(clippy::print_stdout, reason = "the measurements are its result")]

use std::io::Read as _;
use std::time::{Duration, Instant};

use sandbox_agent::protocol::agent::{Event, Request};

use crate::client::command;
use crate::world::{Options, World};

fn p50(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn latency(name: &str, cgroup: bool) {
    let world = World::with(&Options {
        cgroup,
        change: |_| (),
    });
    let client = world.address.connect();
    let mut times = Vec::new();
    for n in 0..600 {
        let start = Instant::now();
        client.send(&Request::Spawn {
            spawn: command(&["/bin/true"]),
        });
        assert!(matches!(client.event(), Event::Started { .. }));
        client.rest().expect_code(0);
        if n >= 100 {
            times.push(start.elapsed());
        }
    }
    println!("exec true, {name}: p50 {:.3} ms", p50(times));
}

fn plain_latency() {
    let mut times = Vec::new();
    for _ in 0..500 {
        let start = Instant::now();
        std::process::Command::new("/bin/true").output().unwrap();
        times.push(start.elapsed());
    }
    println!("exec true, plain: p50 {:.3} ms", p50(times));
}

fn throughput(argv: &[&str]) {
    let world = World::with(&Options {
        cgroup: false,
        change: |_| (),
    });
    let client = world.address.connect();
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        let start = Instant::now();
        client.send(&Request::Spawn {
            spawn: command(argv),
        });
        let bytes = client.count();
        ours.push(start.elapsed());
        assert_eq!(bytes, 100 << 20);

        let start = Instant::now();
        let mut child = std::process::Command::new(argv[0])
            .args(&argv[1..])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdout.take().unwrap();
        let mut buffer = vec![0; 65_536];
        let mut bytes = 0;
        loop {
            match pipe.read(&mut buffer).unwrap() {
                0 => break,
                count => bytes += count,
            }
        }
        child.wait().unwrap();
        plain.push(start.elapsed());
        assert_eq!(bytes, 100 << 20);
    }
    let (ours, plain) = (p50(ours), p50(plain));
    println!(
        "100 MiB of {argv:?}: ours {ours:.1} ms, plain {plain:.1} ms, {:.2}x",
        ours / plain
    );
}

#[test]
#[ignore = "a measurement"]
fn bench() {
    plain_latency();
    latency("no cgroup", false);
    latency("cgroup", true);
    throughput(&["head", "-c", "104857600", "/dev/zero"]);
    throughput(&["dd", "if=/dev/zero", "bs=8K", "count=12800", "status=none"]);
    throughput(&["dd", "if=/dev/zero", "bs=64K", "count=1600", "status=none"]);
    throughput(&["dd", "if=/dev/zero", "bs=1M", "count=100", "status=none"]);
}
