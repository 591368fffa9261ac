use super::*;

#[test]
fn what_others_say_is_cut_and_what_the_program_says_is_not() {
    let long = "ä".repeat(FOREIGN_TEXT_LIMIT_BYTES);
    let said = Error::new("no").source(Error::new(&*long)).render();
    assert_eq!(said.len(), "no: ".len() + long.len());
    let said = Error::new("no").source(std::io::Error::other(format!("a{long}"))).render();
    assert_eq!((said.len(), said.ends_with("ä…")), (4 + FOREIGN_TEXT_LIMIT_BYTES - 1 + "…".len(), true));
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
fn exit_codes_differ() {
    let codes: std::collections::BTreeSet<u8> = Kind::ALL.map(Kind::exit_code).into();
    assert_eq!(codes.len(), Kind::ALL.len());
    assert!(!codes.contains(&0));
}

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
