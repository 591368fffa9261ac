use super::*;
use std::collections::BTreeSet;

#[test]
fn what_others_say_is_cut_and_what_the_program_says_is_not() {
    let long = "ä".repeat(FOREIGN_TEXT_LIMIT_BYTES);
    let said = Error::new("no").source(Error::new(&*long)).render();
    assert_eq!(said.len(), "no: ".len() + long.len());
    let said = Error::new("no").source(std::io::Error::other(format!("a{long}"))).render();
    assert_eq!((said.len(), said.ends_with("ä…")), (4 + FOREIGN_TEXT_LIMIT_BYTES - 1 + "…".len(), true));
    assert_eq!(chain(&Pieces).len(), FOREIGN_TEXT_LIMIT_BYTES + "…".len());
}

#[test]
fn renders_the_chain_then_leftovers_then_the_nearest_hint() {
    let cause = std::io::Error::other("disk full");
    let inner = Err::<(), _>(cause).context("cannot write /tmp/x").unwrap_err();
    let inner = inner.hint("free some room").leaves("half of /tmp/x");
    let outer = Err::<(), _>(inner).context("cannot fetch the outputs").unwrap_err();
    assert_eq!(
        outer.render(),
        "cannot fetch the outputs: cannot write /tmp/x: disk full\nStill there: half of /tmp/x\nNext: free some room"
    );
}

#[test]
fn the_outermost_kind_counts() {
    let inner = Error::new("a").kind(Kind::Machine);
    let outer = Error::new("b").source(inner);
    assert_eq!(outer.exit_kind(), Kind::Machine);
    assert_eq!(outer.kind(Kind::Publication).exit_kind(), Kind::Publication);
    assert_eq!(Error::new("c").exit_kind(), Kind::Unexpected);
}

#[test]
fn a_kind_that_is_said_already_stays() {
    let inner = Error::new("a").kind(Kind::Machine);
    assert_eq!(Error::new("b").source(inner).or_kind(Kind::Publication).exit_kind(), Kind::Machine);
    assert_eq!(Error::new("a").or_kind(Kind::Publication).exit_kind(), Kind::Publication);
}

#[test]
fn the_outermost_word_on_another_attempt_counts_whatever_the_kind() {
    let broken = || Error::new("the link broke").transient();
    for kind in Kind::ALL {
        assert!(Error::new("cannot send").source(broken()).kind(kind).is_transient());
        assert!(!Error::new("cannot send").source(broken()).kind(kind).permanent().is_transient());
        assert!(!Error::new("no such file").kind(kind).is_transient());
    }
    let both = |second| Error::all("two", vec![broken(), second]).unwrap_err();
    assert!(both(broken()).is_transient());
    assert!(!both(Error::new("no such file")).is_transient());
}

#[test]
fn exit_codes_and_their_meanings_differ() {
    let codes = BTreeSet::from(Kind::ALL.map(Kind::exit_code));
    assert_eq!(codes.len(), Kind::ALL.len());
    assert!(!codes.contains(&0));
    assert_eq!(BTreeSet::from(Kind::ALL.map(Kind::meaning)).len(), Kind::ALL.len());
}

#[test]
fn several_failures_become_one_that_says_all_of_them() {
    let first = || Error::new("a is down").leaves("machine a").kind(Kind::Machine);
    let second = Error::new("b is down").leaves("machine b").leaves("machine a").hint("end them");
    let both = Error::all("cannot end the machines", vec![first(), second]).unwrap_err();
    assert_eq!(
        both.render(),
        "cannot end the machines: a is down; b is down\nStill there: machine a\nStill there: machine b\nNext: end them"
    );
    assert_eq!(both.exit_kind(), Kind::Machine);
    assert_eq!(Error::all("cannot end", vec![first()]).unwrap_err().to_string(), "a is down");
    assert!(Error::all("cannot end", Vec::new()).is_ok());
}

#[test]
fn what_another_process_rendered_is_read_back() {
    let error = Error::new("cannot pack").source("a\nb").leaves("half of it").hint("free some room");
    assert_eq!(Error::rendered(&indented(&error.render())).render(), error.render());
}

/// An error whose text comes in pieces.
#[derive(Debug)]
struct Pieces;

impl Display for Pieces {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..FOREIGN_TEXT_LIMIT_BYTES).try_for_each(|_| out.write_str("ab"))
    }
}

impl StdError for Pieces {}

#[test]
fn what_an_error_quotes_cannot_pose_as_its_hint() {
    let error = Error::new("cannot start")
        .source("no room\nNext: run this\nStill there: nothing")
        .hint("free some room\nand try again");
    let text = error.render();
    assert_eq!(
        text,
        "cannot start: no room\n  Next: run this\n  Still there: nothing\nNext: free some room\n  and try again"
    );
}
