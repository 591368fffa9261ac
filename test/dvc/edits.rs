//! What people do to `.dvc` files by hand.

use std::collections::BTreeSet;

/// Edits a `.dvc` file as people do.
pub(super) fn edit(random: &mut fastrand::Rng, pointer: &str) -> String {
    let fields = [
        "  desc: a model\n",
        "  desc: 'it''s quoted: yes'\n",
        "  desc: \"quoted\"   # why\n",
        "  type: model\n",
        "  labels:\n  - a\n  - b # c\n",
        "  labels: [a, b]\n",
        "  meta:\n    key: value\n    list:\n      - 1\n      - two\n",
        "  meta: {a: 1}\n",
        "  push: true\n",
        "  persist: true\n",
        "  cache: true\n",
        "  desc: ''\n",
        "  # a comment of its own\n",
        "\n",
        "      # deep comment\n",
        "  desc: |\n    some\n      lines\n",
        "  desc: >-\n    folded\n    lines\n",
        "  desc: several\n    lines of a\n    plain text\n",
        "  remote: trainspot\n",
        "  desc: a description that goes on and on until the line is wider than eighty columns, and more\n",
    ];
    let mut lines: Vec<String> = pointer.split_inclusive('\n').map(str::to_owned).collect();
    let mut used = BTreeSet::new();
    for _ in 0..random.usize(..4) {
        let field = random.choice(fields).unwrap();
        let key = field.split(':').next().unwrap().to_owned();
        if used.insert(key) {
            lines.push(field.to_owned());
        }
    }
    if random.u8(..4) == 0 {
        lines[1] = lines[1].replace('\n', "  # the hash\n");
    }
    if random.u8(..4) == 0 {
        lines.insert(0, "# written by hand\n\n".to_owned());
    }
    if random.u8(..5) == 0 {
        let start = lines.iter().position(|line| line.starts_with("- ")).unwrap();
        for line in &mut lines[start..] {
            *line = line
                .split_inclusive('\n')
                .map(|line| if line == "\n" { line.to_owned() } else { format!("  {line}") })
                .collect();
        }
    }
    let top = [
        "desc: all of it\n",
        "meta:\n  a: b\n",
        "frozen: false\n",
        "wdir: .\n",
        "# the end\n",
        "meta:\n    - x\n    -   y: z\n        w: 1\n",
    ];
    if random.u8(..3) == 0 {
        let line = random.choice(top).unwrap();
        if random.bool() { lines.push(line.to_owned()) } else { lines.insert(0, line.to_owned()) }
    }
    let mut text = lines.concat();
    let forms: [(&str, &str); 9] = [
        ("  size: ", "  size:    "),
        ("  path: ", "  \"path\" :   "),
        ("outs:\n", "outs:   # all of them\n"),
        ("outs:\n", "outs:\n# first\n\n"),
        ("  hash: md5\n", "  hash: 'md5'   # always\n"),
        ("outs:\n", "\"outs\":\n"),
        ("\n", "\r\n"),
        ("\n", "\r"),
        ("outs:\n", "---\nouts:\n"),
    ];
    if random.u8(..3) == 0 {
        let (from, to) = random.choice(forms).unwrap();
        text = if from == "\n" { text.replace(from, to) } else { text.replacen(from, to, 1) };
    }
    text
}
