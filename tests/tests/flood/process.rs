//! A program from outside: what the system and its metrics tell of it.

use std::{fs, time::Duration};

use interlock_tests::{Service, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How often the system counts the time of a process: `CLK_TCK`, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory, KiB.
pub(crate) fn memory_kib(service: &Service) -> i64 {
    let status = read(service, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has some");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Time on processors so far.
pub(crate) fn cpu(service: &Service) -> Duration {
    let stat = read(service, "stat");
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th after it.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number"));
    Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS_PER_SECOND)
}

/// Open file descriptors.
pub(crate) fn descriptors(service: &Service) -> usize {
    let pid = service.pid().expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).expect("ours").count()
}

fn read(service: &Service, file: &str) -> String {
    let pid = service.pid().expect("it runs");
    fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a process of ours")
}

/// The sum of all lines of a metric that hold these texts.
pub(crate) async fn metric(service: &Service, name: &str, labels: &[&str]) -> f64 {
    let text = within("the metrics", page(service)).await;
    let lines = text.lines().filter(|line| {
        line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label))
    });
    lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")).sum()
}

async fn page(service: &Service) -> String {
    let mut stream = TcpStream::connect(service.address("metrics")).await.expect("accepted");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("text");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    page
}
