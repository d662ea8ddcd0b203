//! Requests and responses for tests.

/// A request under construction; every part has a default.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    uri: String,
    via: String,
    branch: String,
    from_tag: String,
    to_tag: String,
    call_id: String,
    cseq: u32,
    headers: Vec<String>,
    body: String,
}

impl Request {
    /// A request of `method` to `uri`, sent by 198.51.100.7.
    pub fn new(method: &str, uri: &str) -> Self {
        Self {
            method: method.to_owned(),
            uri: uri.to_owned(),
            via: "SIP/2.0/UDP 198.51.100.7:5060".to_owned(),
            branch: format!("z9hG4bK-{method}-1"),
            from_tag: "alice".to_owned(),
            to_tag: String::new(),
            call_id: "call-1@198.51.100.7".to_owned(),
            cseq: 1,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// Another branch.
    #[must_use]
    pub fn branch(mut self, branch: &str) -> Self {
        self.branch = branch.to_owned();
        self
    }

    /// Another transport and sent-by.
    #[must_use]
    pub fn via(mut self, via: &str) -> Self {
        self.via = via.to_owned();
        self
    }

    /// Other tags.
    #[must_use]
    pub fn tags(mut self, from: &str, to: &str) -> Self {
        (self.from_tag, self.to_tag) = (from.to_owned(), to.to_owned());
        self
    }

    /// Another Call-ID.
    #[must_use]
    pub fn call_id(mut self, call_id: &str) -> Self {
        self.call_id = call_id.to_owned();
        self
    }

    /// Another CSeq number.
    #[must_use]
    pub fn cseq(mut self, cseq: u32) -> Self {
        self.cseq = cseq;
        self
    }

    /// One more header field line.
    #[must_use]
    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// A body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        self.body = body.to_owned();
        self
    }

    /// The message.
    pub fn text(&self) -> String {
        let Self { method, uri, via, branch, from_tag, to_tag, call_id, cseq, body, .. } = self;
        let to_tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let extra: String = self.headers.iter().map(|line| format!("{line}\r\n")).collect();
        let hops = if self.headers.iter().any(|line| line.starts_with("Max-Forwards")) { "" } else { "Max-Forwards: 70\r\n" };
        format!(
            "{method} {uri} SIP/2.0\r\nVia: {via};branch={branch}\r\n{hops}From: <sip:alice@example.net>;tag={from_tag}\r\nTo: <sip:bob@example.net>{to_tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@198.51.100.7>\r\n{extra}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// A response to `request` as a user agent would make it, with this To tag.
pub fn response(request: &str, status_code: u16, to_tag: &str) -> String {
    let mut text = format!("SIP/2.0 {status_code} Whatever\r\n");
    for line in request.lines().skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if matches!(name, "Via" | "Record-Route" | "From" | "Call-ID" | "CSeq") {
            text.push_str(line);
            text.push_str("\r\n");
        } else if name == "To" {
            text.push_str(line);
            if !line.contains(";tag=") && status_code > 100 {
                text.push_str(&format!(";tag={to_tag}"));
            }
            text.push_str("\r\n");
        }
    }
    text.push_str("Contact: <sip:bob@203.0.113.9>\r\nContent-Length: 0\r\n\r\n");
    text
}

/// Every value of header field `name`.
pub fn headers<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    message.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

/// The first value of header field `name`; empty where there is none.
pub fn header<'a>(message: &'a str, name: &str) -> &'a str {
    headers(message, name).first().copied().unwrap_or_default()
}

/// The To tag of a message.
pub fn final_to_tag(message: &str) -> &str {
    header(message, "To").split(";tag=").nth(1).unwrap_or_default()
}

/// A description of one audio stream.
pub fn sdp(address: &str, port: u16) -> String {
    let family = if address.contains(':') { "IP6" } else { "IP4" };
    format!("v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\na=sendrecv\r\n")
}

/// `message` with a session description.
pub fn with_body(message: &str, sdp: &str) -> String {
    let head = message.split("Content-Length:").next().unwrap_or_default();
    format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len())
}
