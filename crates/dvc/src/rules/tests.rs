use super::*;

fn taken(kind: RuleDialect, text: &str, path: &str) -> bool {
    let root = tempfile::tempdir().unwrap();
    let mut rules = IgnoreRules::new(root.path(), kind);
    rules.set(Path::new(""), text);
    let folder = path.ends_with('/');
    rules.take(Path::new(path.trim_end_matches('/')), folder).unwrap()
}

#[test]
fn git_and_dvc_agree_on_what_a_rule_names() {
    for kind in [RuleDialect::Git, RuleDialect::Dvc] {
        for (text, path, wanted) in [
            ("*.bin", "a/b.bin", true),
            ("/a", "b/a", false),
            ("a/b", "a/b/c", true),
            ("a/b", "x/a/b", false),
            ("a/**/b", "a/x/y/b", true),
            ("out/", "out", false),
            ("out/", "out/", true),
            ("*.bin\n!keep.bin", "keep.bin", false),
            ("{a}", "{a}", true),
            ("{a,b}", "a", false),
            ("\\!a", "!a", true),
            ("[ab]c", "bc", true),
            ("[", "[", false),
            ("#a", "#a", false),
            ("a ", "a", true),
        ] {
            assert_eq!(taken(kind, text, path), wanted, "{kind:?} {text:?} {path:?}");
        }
    }
}

#[test]
fn dvc_applies_a_rule_to_all_below_what_it_names() {
    for (text, path, git, dvc) in [
        ("*.txt\n!keep", "keep/a.txt", true, false),
        ("a/**\n!a/b", "a/b", false, true),
        ("*/", "a/", true, false),
        ("a\\ ", "a ", true, false),
    ] {
        assert_eq!(taken(RuleDialect::Git, text, path), git, "{text:?} {path:?}");
        assert_eq!(taken(RuleDialect::Dvc, text, path), dvc, "{text:?} {path:?}");
    }
}

/// The answers are those of `git check-ignore`, version 2.47.
#[test]
fn rules_are_read_as_git_reads_them() {
    for (text, path, wanted) in [
        ("*.log\n!keep.log", "keep.log", false),
        ("!keep.log\n*.log", "keep.log", true),
        ("out/\n!out/a", "out/a", true),
        ("out/*\n!out/a", "out/a", false),
        ("/a", "a", true),
        ("/a", "d/a", false),
        ("d/a", "d/a", true),
        ("d/a", "x/d/a", false),
        ("a", "d/e/a", true),
        ("*/a", "d/e/a", false),
        ("**/a", "a", true),
        ("d/**", "d/e/a", true),
        ("d/**", "d/", false),
        ("d/**/a", "d/a", true),
        ("d/**/a", "d/e/f/a", true),
        ("a**z", "abz", true),
        ("a**z", "a/z", false),
        ("a ", "a", true),
        ("a\\ ", "a ", true),
        ("a\\  ", "a ", true),
        ("a\\\\ ", "a\\", true),
        ("a\t", "a", false),
        ("a\t", "a\t", true),
        ("a\r\n", "a", true),
        (" a", "a", false),
        (" a", " a", true),
        ("[a-c]x", "bx", true),
        ("[!a]x", "bx", true),
        ("[^a]x", "ax", false),
        ("[]x]", "]", true),
        ("[a", "[a", false),
        ("\\[a", "[a", true),
        ("a\\", "a", false),
        ("out/", "out", false),
        ("out/", "out/a", true),
        ("out/", "d/out/a", true),
        ("**//", "out/", false),
        ("/**//", "a", false),
        ("\u{feff}a", "a", true),
        ("\\#a", "#a", true),
        ("{a,b}", "a", false),
        ("A", "a", false),
        ("?", "é", false),
    ] {
        assert_eq!(taken(RuleDialect::Git, text, path), wanted, "{text:?} {path:?}");
    }
}

/// The answers are those of `git check-ignore`, version 2.47.
#[test]
fn the_nearest_file_with_a_rule_for_a_path_decides() {
    let root = tempfile::tempdir().unwrap();
    for (texts, path, wanted) in [
        (&[("", "*.log"), ("d", "!*.log")] as &[_], "d/a.log", false),
        (&[("", "*.log"), ("d", "!*.log")], "d/e/a.log", false),
        (&[("", "*.log"), ("d", "!*.log"), ("d/e", "*.log")], "d/e/a.log", true),
        (&[("", "d/"), ("d", "!a")], "d/a", true),
        (&[("d", "/a")], "d/a", true),
        (&[("d", "/a")], "d/e/a", false),
        (&[("d", "e/a")], "d/e/a", true),
        (&[("d", "a")], "a", false),
    ] {
        let mut rules = IgnoreRules::new(root.path(), RuleDialect::Git);
        for (folder, text) in texts {
            rules.set(Path::new(folder), text);
        }
        assert_eq!(rules.take(Path::new(path), false).unwrap(), wanted, "{texts:?} {path:?}");
    }
}

#[test]
fn a_carriage_return_ends_a_line_for_dvc() {
    assert!(taken(RuleDialect::Dvc, "# all that it makes\r*.bin\r", "a.bin"));
}
