//! Progress of what takes longer than a few seconds: a bar on a terminal, a line every 10 s in a CI log.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// The time between two lines of progress in a log.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Progress of a number of bytes.
pub struct Progress {
    what: String,
    done: u64,
    total: Option<u64>,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress of `what`, as in "fetching the outputs"; `total` in bytes where it is known.
    #[must_use]
    pub fn bytes(what: &str, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
        Self { what: what.to_owned(), done: 0, total, last_line: Instant::now(), bar }
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.last_line.elapsed() >= PROGRESS_INTERVAL {
            self.last_line = Instant::now();
            tracing::info!("{}", self.line());
        }
    }

    fn line(&self) -> String {
        match self.total {
            Some(total) => format!("{}: {} of {}", self.what, HumanBytes(self.done), HumanBytes(total)),
            None => format!("{}: {}", self.what, HumanBytes(self.done)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let bar =
        ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_message(what.to_owned());
    let form = if total.is_some() {
        "{msg} {bar:30} {bytes}/{total_bytes} {eta}"
    } else {
        "{msg} {spinner} {bytes}"
    };
    bar.with_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Says every 10 s that `what` is still going on, until `work` is done. The waits double up to five minutes.
pub async fn while_waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let mut wait = PROGRESS_INTERVAL;
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep(wait) => {
                tracing::info!("still {what} ({})", in_words(start.elapsed()));
                wait = (wait * 2).min(Duration::from_mins(5));
            }
        }
    }
}

/// A duration as people say it: tenths of a second below ten seconds, none above.
#[must_use]
pub fn in_words(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        return format!("{:.1}s", duration.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(total: Option<u64>, bar: Option<ProgressBar>) -> Progress {
        Progress { what: "fetching".to_owned(), done: 0, total, last_line: Instant::now(), bar }
    }

    #[test]
    fn a_line_says_how_much_is_done() {
        for (total, wanted) in
            [(None, "fetching: 3.00 KiB"), (Some(6 << 10), "fetching: 3.00 KiB of 6.00 KiB")]
        {
            let mut progress = progress(total, None);
            progress.add(1 << 10);
            progress.add(2 << 10);
            assert_eq!(progress.line(), wanted);
        }
    }

    #[test]
    fn a_line_is_due_ten_seconds_after_the_one_before() {
        let mut progress = progress(None, None);
        let start = progress.last_line;
        progress.add(1);
        assert_eq!(progress.last_line, start);
        progress.last_line = start.checked_sub(PROGRESS_INTERVAL).unwrap();
        progress.add(1);
        assert!(progress.last_line >= start);
    }

    #[test]
    fn a_bar_goes_with_its_progress() {
        let bar = ProgressBar::hidden();
        drop(progress(None, Some(bar.clone())));
        assert!(bar.is_finished());
    }

    #[test]
    fn a_duration_is_said_as_precisely_as_people_need_it() {
        for (milliseconds, wanted) in [(40, "0.0s"), (1_260, "1.3s"), (10_000, "10s"), (61_900, "1m 1s")] {
            assert_eq!(in_words(Duration::from_millis(milliseconds)), wanted);
        }
    }
}
