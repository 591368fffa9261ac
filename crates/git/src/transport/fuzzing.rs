//! What must hold of any answer of a git server. The program `packets` of `fuzz/` looks for one of which it
//! does not.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "what does not hold is a panic")]

use super::packet::{self, FLUSH_PACKET, SideBand};
use super::smart::{self, BRANCHES_LIMIT, MESSAGES_LIMIT_BYTES};
use std::io::Read as _;

const GIT_SERVICE: &str = "git-upload-pack";
const PUSHED_BRANCH: &str = "refs/heads/main";

/// Reads an answer. `input` is a digit for what was asked for, then the answer; one to a push or for the
/// references has a line for each packet, and the fuzzer need not count them.
pub fn packets(input: &[u8]) {
    let Some((question, answer)) = input.split_first() else { return };
    match question.wrapping_sub(b'0') % 7 {
        0 => check_packets(answer),
        1 => check_bands(answer),
        2 => check_refs(answer),
        3 => check_refs(&[packed(b"# service=git-upload-pack"), in_lines(answer)].concat()),
        4 => check_report(answer, false),
        5 => check_report(&in_lines(answer), false),
        _ => check_report(&in_lines(answer), true),
    }
}

/// A packet of a line.
fn packed(line: &[u8]) -> Vec<u8> {
    [format!("{:04x}", line.len() + 5).as_bytes(), line, b"\n"].concat()
}

/// A packet for each line, and a flush for each empty one.
fn in_lines(text: &[u8]) -> Vec<u8> {
    let packet = |line: &[u8]| if line.is_empty() { FLUSH_PACKET.to_vec() } else { packed(line) };
    text.split(|byte| *byte == b'\n').flat_map(packet).collect()
}

/// Packets are those bytes that git would write for their data, and no others.
fn check_packets(mut answer: &[u8]) {
    loop {
        let before = answer;
        let Ok(data) = packet::read(&mut answer) else { return };
        let taken = &before[..before.len() - answer.len()];
        let length = data.as_ref().map_or(0, |data| data.len() + 4);
        assert_eq!(taken[..4].to_ascii_lowercase(), format!("{length:04x}").into_bytes());
        assert_eq!(&taken[4..], data.unwrap_or_default());
    }
}

fn check_bands(answer: &[u8]) {
    let (mut told, mut data) = (0, Vec::new());
    let read = SideBand::new(answer, |text: &[u8]| told += text.len()).read_to_end(&mut data);
    assert!(told + data.len() <= answer.len());
    assert!(read.is_err() || answer.windows(4).any(|part| part == FLUSH_PACKET), "it has no end");
}

fn check_refs(mut answer: &[u8]) {
    let Ok(refs) = smart::read_refs(&mut answer, GIT_SERVICE) else { return };
    assert!(refs.ids.len() <= BRANCHES_LIMIT);
    for (name, id) in &refs.ids {
        assert!(name.starts_with("refs/heads/") && !id.is_zero(), "{name}");
        assert_eq!(refs.branch(name.strip_prefix("refs/heads/").unwrap()), Some(*id));
    }
    let _ = refs.branches();
}

/// A push counts as taken only where the server says so of this branch.
fn check_report(answer: &[u8], side_band: bool) {
    match smart::read_report(answer, side_band, PUSHED_BRANCH) {
        // Of bands, the parts of a word may be in several packets.
        Ok(None) if !side_band => {
            let said = format!("ok {PUSHED_BRANCH}");
            assert!(answer.windows(said.len()).any(|part| part == said.as_bytes()));
        }
        Ok(Some(why)) => assert!(why.len() <= 3 * (MESSAGES_LIMIT_BYTES + answer.len())),
        Ok(None) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn it_holds_of_the_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/packets");
        for seed in std::fs::read_dir(seeds).unwrap() {
            packets(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
