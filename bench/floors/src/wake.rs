//! What it takes to ask another process and be answered, with nothing decided: one byte each way, both sleeping in between.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Asks so many times a second, evenly, and prints within how many microseconds half and 99 % were answered.
pub(crate) fn wake(rate: u64, seconds: u64) -> io::Result<()> {
    let ((questions, mut ask), (mut answers, answer)) = (io::pipe()?, io::pipe()?);
    let mut other = other(questions, answer)?;
    let mut took = Vec::new();
    let start = Instant::now();
    for number in 0..rate * seconds {
        let due = start + Duration::from_nanos(1_000_000_000 / rate.max(1) * number);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        ask.write_all(&[0])?;
        answers.read_exact(&mut [0])?;
        took.push(asked.elapsed().as_nanos() as u64);
    }
    drop(ask);
    other.wait()?;
    took.sort_unstable();
    let within = |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).map_or(0.0, |took| *took as f64 / 1e3);
    println!("{{\"p50\": {:.1}, \"p99\": {:.1}}}", within(50), within(99));
    Ok(())
}

fn other(questions: PipeReader, answer: PipeWriter) -> io::Result<Child> {
    Command::new(std::env::current_exe()?).arg("echo").stdin(Stdio::from(questions)).stdout(Stdio::from(answer)).spawn()
}

/// The other process: what comes goes back, until the end.
pub(crate) fn echo() -> io::Result<()> {
    let (mut questions, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut byte = [0];
    while questions.read(&mut byte)? > 0 {
        answers.write_all(&byte)?;
        answers.flush()?;
    }
    Ok(())
}
