use super::*;
use std::sync::Arc;
use tracing::subscriber::with_default;
use tracing_subscriber::registry;

fn count_of(name: &str) -> usize {
    lock(&HIDDEN_SECRETS).iter().filter(|secret| secret.name == name).count()
}

#[test]
fn each_value_of_a_secret_is_hidden_and_kept_once() {
    for value in ["first-of-log-tests", "second-of-log-tests", "first-of-log-tests", "short"] {
        hide([Secret::new("LOG_TESTS", value)]);
    }
    assert_eq!(redact("a first-of-log-tests, second-of-log-tests"), "a $LOG_TESTS, $LOG_TESTS");
    assert_eq!(fit_to_send("\x1b[2Jfirst-of-log-tests short"), "$LOG_TESTS short");
    assert_eq!(count_of("LOG_TESTS"), 2);
    hide([Secret::new("LOG_TESTS_TOO", "first-of-log-tests")]);
    assert_eq!(count_of("LOG_TESTS_TOO"), 1);
}

#[test]
fn what_is_like_a_token_is_not_shown() {
    assert_eq!(without_tokens("PUBLISH 'ATCTT3xFfGN0Zq7pLk29mWcXy4vB'"), "PUBLISH '(not shown)'");
}

#[test]
fn words_of_others_stand_behind_a_bar_and_their_colours_end_with_the_line() {
    assert_eq!(barred("a\n\x1b[31mb\n"), "│ a\n│ \x1b[31mb\x1b[0m\n│ \n");
}

/// Keeps the lines instead of printing them.
struct Kept(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Kept {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        lock(&self.0).push(line_of(event));
    }
}

#[test]
fn an_event_is_a_line_with_its_message_and_no_line_of_it_poses_as_another() {
    let lines = Arc::default();
    with_default(registry().with(Kept(Arc::clone(&lines))), || {
        tracing::error!("no");
        tracing::warn!(field = "of no use", "a {}\nERROR: b", 1);
        tracing::info!("c");
        tracing::debug!("d");
    });
    let wanted = [
        "\x1b[31mERROR: no\x1b[0m\n",
        "\x1b[33mWARNING: a 1\n  ERROR: b\x1b[0m\n",
        "\x1b[34mINFO: c\x1b[0m\n",
        "\x1b[36mDEBUG: d\x1b[0m\n",
    ];
    assert_eq!(*lock(&lines), wanted);
}

#[test]
fn lines_for_debugging_are_shown_once_they_are_wanted_and_other_programs_lines_never() {
    macro_rules! is_shown {
        ($target:literal, $level:ident) => {
            tracing::enabled!(target: $target, Level::$level)
        };
    }
    with_default(registry().with(LogLayer), || {
        assert!(is_shown!("trainspot_x", ERROR) && is_shown!("trainspot", INFO));
        assert!(!is_shown!("trainspot_x", DEBUG) && !is_shown!("h2", ERROR));
        show_debug();
        assert!(is_shown!("trainspot_x", DEBUG) && is_shown!("trainspot_x", INFO));
        assert!(!is_shown!("trainspot_x", TRACE) && !is_shown!("h2", DEBUG));
    });
}
