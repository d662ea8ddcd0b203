//! The messages of RFC 4475 and RFC 5118 against the ledgers of expected outcomes, on the parser alone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use syntax::{Edits, Head, Limits, Message, parse};

fn ledger(name: &str) -> Vec<(String, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name).join("expect.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let entry = |line: &str| {
        let (name, rest) = line.split_once(" = ")?;
        rest.starts_with('{').then(|| (name.to_owned(), rest.contains("syntax = \"accept\"")))
    };
    text.lines().filter_map(entry).collect()
}

/// The borrowed messages, where they are to be had; our own stand in tests/vectors/own.
fn borrowed(name: &str) -> Option<PathBuf> {
    std::env::var_os("EDGEPROXY_VECTORS").map(|folder| PathBuf::from(folder).join(name))
}

/// RFC 5118's archive has bare line feeds, and three messages with a wrong Content-Length.
fn as_sent(name: &str, file: &str, bytes: Vec<u8>) -> Vec<u8> {
    if name != "rfc5118" {
        return bytes;
    }
    let text = String::from_utf8(bytes).unwrap().replace("\r\n", "\n").replace('\n', "\r\n");
    let body = text.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
    if !["ipv6-in-sdp", "mult-ip-in-sdp", "ipv4-mapped-ipv6"].contains(&file) {
        return text.into_bytes();
    }
    let fix = |line: &str| if line.starts_with("Content-Length:") { format!("Content-Length: {body}") } else { line.to_owned() };
    let (head, tail) = text.split_once("\r\n\r\n").unwrap();
    format!("{}\r\n\r\n{tail}", head.split("\r\n").map(fix).collect::<Vec<_>>().join("\r\n")).into_bytes()
}

#[test]
fn every_torture_message_is_accepted_or_refused_as_the_ledger_says() {
    for (name, ending) in [("rfc4475", ".dat"), ("rfc5118", "")] {
        let entries = ledger(name);
        assert!(entries.len() > 10);
        let Some(folder) = borrowed(name) else { continue };
        for (file, accept) in &entries {
            let bytes = as_sent(name, file, std::fs::read(folder.join(format!("{file}{ending}"))).unwrap());
            let mut head = Head::default();
            let parsed = parse(&bytes, &Limits::STANDARD, &mut head);
            assert_eq!(parsed.is_ok(), *accept, "{name} {file}: {parsed:?}");
            if *accept {
                let mut printed = Vec::new();
                Edits::default().apply(&Message::new(&bytes, &head), &mut printed);
                let mut again = Head::default();
                assert_eq!(parse(&printed, &Limits::STANDARD, &mut again), Ok(()), "{name} {file} printed");
                assert!(!again.irregular, "{name} {file} is regular once printed");
            }
        }
        let present = std::fs::read_dir(&folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "SHA256SUMS").count();
        assert_eq!(present, entries.len(), "{name}: every message is listed");
    }
}
