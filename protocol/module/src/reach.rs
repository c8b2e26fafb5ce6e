//! What a module can reach, which its imports tell: a module cannot use what it does not import.

/// What can be reached, in a few words for people. `imports` are the names that `modules check`
/// lists.
pub(crate) fn reach(imports: &[String]) -> String {
    let any = |parts: &[&str]| {
        imports
            .iter()
            .any(|import| parts.iter().any(|part| import.contains(part)))
    };
    let mut reached = Vec::new();
    if any(&[".path_", ".fd_readdir", "wasi:filesystem/"]) {
        reached.push("its own folder");
    }
    if any(&[".clock_", ".poll_oneoff", "wasi:clocks/"]) {
        reached.push("clock");
    }
    if any(&[".random_get", "wasi:random/"]) {
        reached.push("random numbers");
    }
    let mut text = "nothing of the machine".to_owned();
    if let Some((last, others)) = reached.split_last() {
        text.push_str(" but ");
        text.push_str(&others.join(", "));
        text.push_str(if others.is_empty() { "" } else { " and " });
        text.push_str(last);
    }
    if any(&["wasi:http/outgoing-handler"]) {
        text.push_str("; HTTP, to hosts that its manifest names and that are approved");
    }
    if any(&[".sock_", "wasi:sockets/"]) {
        text.push_str("; it knows sockets, every use of which is refused");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn imports_tell_what_can_be_reached() {
        let reach = |imports: &[&str]| {
            super::reach(
                &imports
                    .iter()
                    .map(|name| (*name).into())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            reach(&["wasi_snapshot_preview1.fd_write"]),
            "nothing of the machine"
        );
        assert_eq!(
            reach(&["wasi:clocks/wall-clock@0.2.6"]),
            "nothing of the machine but clock"
        );
        let all = [
            "wasi_snapshot_preview1.path_open",
            "wasi_snapshot_preview1.random_get",
            "wasi:clocks/wall-clock@0.2.0",
        ];
        assert_eq!(
            reach(&all),
            "nothing of the machine but its own folder, clock and random numbers"
        );
        assert!(
            reach(&["wasi:http/outgoing-handler@0.2.6"]).contains("hosts that its manifest names")
        );
        assert!(reach(&["wasi:sockets/tcp@0.2.0"]).ends_with("every use of which is refused"));
    }
}
