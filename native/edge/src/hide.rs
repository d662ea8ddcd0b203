//! Takes secrets out of a message that somebody will look at: credentials and media keys become asterisks.

/// Overwrites the values of credentials and of SDES keys (RFC 4568) in place; lengths stay, so that the message still parses.
pub fn hide_secrets(message: &mut [u8]) {
    let mut hidden = false;
    for line in message.split_mut(|byte| *byte == b'\n') {
        // A folded line belongs to the field above it.
        let start = if matches!(line.first(), Some(b' ' | b'\t')) {
            if !hidden {
                continue;
            }
            0
        } else {
            match secret_from(line) {
                Some(start) => start,
                None => {
                    hidden = false;
                    continue;
                }
            }
        };
        hidden = true;
        let end = line.len() - usize::from(line.ends_with(b"\r"));
        line.iter_mut().take(end).skip(start).filter(|byte| !matches!(byte, b' ' | b'\t')).for_each(|byte| *byte = b'*');
    }
}

/// Where the secret of a line begins, if it has one.
fn secret_from(line: &[u8]) -> Option<usize> {
    if line.starts_with(b"k=") {
        return Some(2);
    }
    let colon = line.iter().take(64).position(|byte| *byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
    (is(b"authorization") || is(b"proxy-authorization") || is(b"authentication-info") || is(b"a=crypto") || is(b"a=key-mgmt") || is(b"a=ice-pwd"))
        .then_some(colon + 1)
}

#[cfg(test)]
mod tests {
    use super::hide_secrets;

    #[test]
    fn credentials_and_keys_are_hidden_and_nothing_else_changes() {
        let text = "INVITE sip:a@b SIP/2.0\r\nproxy-Authorization : Digest username=\"a\",\r\n response=\"77\"\r\nSubject: x\r\n y\r\n\r\na=crypto:1 AES inline:key\r\na=rtpmap:0 PCMU/8000\r\nk=prompt\r\na=ice-pwd:secret\r\n";
        let mut bytes = text.as_bytes().to_vec();
        hide_secrets(&mut bytes);
        let hidden = String::from_utf8(bytes).unwrap();
        assert_eq!(hidden.len(), text.len());
        assert_eq!(
            hidden,
            "INVITE sip:a@b SIP/2.0\r\nproxy-Authorization : ****** *************\r\n *************\r\nSubject: x\r\n y\r\n\r\na=crypto:* *** **********\r\na=rtpmap:0 PCMU/8000\r\nk=******\r\na=ice-pwd:******\r\n"
        );
    }
}
