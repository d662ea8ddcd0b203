//! Users as Python sees them: credentials wanted, bindings to be written or taken over.

use edge::{CredentialAnswer, CredentialQuestion, LocationRow, LocationWrite};
use pyo3::prelude::*;

/// A row of the table `location`.
#[pyclass(frozen, get_all)]
#[derive(Clone)]
pub(crate) struct BindingRow {
    contact_id: u64,
    user: String,
    domain: String,
    contact: String,
    received: String,
    path: String,
    expires: u64,
    q: u16,
    call_id: String,
    cseq: u32,
    modified: u64,
    natted: bool,
    user_agent: String,
    socket: String,
    instance: String,
    reg_id: u32,
}

#[pymethods]
impl BindingRow {
    #[new]
    #[pyo3(signature = (contact_id, user, domain, contact, received, path, expires, q, call_id, cseq, modified, natted, user_agent, socket, instance, reg_id=0))]
    #[expect(clippy::too_many_arguments, reason = "the columns of a row")]
    fn new(
        contact_id: u64,
        user: String,
        domain: String,
        contact: String,
        received: String,
        path: String,
        expires: u64,
        q: u16,
        call_id: String,
        cseq: u32,
        modified: u64,
        natted: bool,
        user_agent: String,
        socket: String,
        instance: String,
        reg_id: u32,
    ) -> Self {
        Self { contact_id, user, domain, contact, received, path, expires, q, call_id, cseq, modified, natted, user_agent, socket, instance, reg_id }
    }
}

impl From<LocationRow> for BindingRow {
    fn from(row: LocationRow) -> Self {
        let LocationRow {
            contact_id,
            user,
            domain,
            contact,
            received,
            path,
            expires,
            q,
            call_id,
            cseq,
            modified,
            natted,
            user_agent,
            socket,
            instance,
            reg_id,
        } = row;
        Self { contact_id, user, domain, contact, received, path, expires, q, call_id, cseq, modified, natted, user_agent, socket, instance, reg_id }
    }
}

impl From<BindingRow> for LocationRow {
    fn from(row: BindingRow) -> Self {
        let BindingRow { contact_id, user, domain, contact, received, path, expires, q, call_id, cseq, modified, natted, user_agent, socket, instance, reg_id } =
            row;
        Self { contact_id, user, domain, contact, received, path, expires, q, call_id, cseq, modified, natted, user_agent, socket, instance, reg_id }
    }
}

/// The number of the row of a binding.
#[pyfunction]
#[pyo3(signature = (user, domain, contact, instance="", reg_id=0))]
pub(crate) fn contact_id(user: &str, domain: &str, contact: &str, instance: &str, reg_id: u32) -> u64 {
    edge::contact_id(format!("{user}@{domain}").as_bytes(), contact.as_bytes(), instance.as_bytes(), if instance.is_empty() { 0 } else { reg_id })
}

/// Worker, user, domain, realm, and the user's name as a clear password is hashed with it.
pub(crate) type Wanted = (u8, String, String, String, String);
/// What the database says of a user: the clear password, HA1 by MD5, SHA-256 and SHA-512-256, and attributes by name.
pub(crate) type Known = (String, String, String, String, Vec<(String, String)>);
/// A question; whether the database could be asked; and what it says, nothing for nobody.
pub(crate) type Told = (Wanted, bool, Option<Known>);

pub(crate) fn wanted(question: CredentialQuestion) -> Wanted {
    (question.worker, question.user, question.domain, question.realm, question.named)
}

pub(crate) fn told(((worker, user, domain, realm, named), available, found): Told) -> (CredentialQuestion, CredentialAnswer) {
    let answer = match found {
        _ if !available => CredentialAnswer::Unavailable,
        Some((password, md5, sha256, sha512, attributes)) => CredentialAnswer::Found(password, [md5, sha256, sha512], attributes),
        None => CredentialAnswer::Unknown,
    };
    (CredentialQuestion { worker, user, domain, realm, named }, answer)
}

/// A write as number and row; no row where it is to go.
pub(crate) fn write(write: LocationWrite) -> (u64, Option<BindingRow>) {
    match write {
        LocationWrite::Put(row) => (row.contact_id, Some((*row).into())),
        LocationWrite::Delete(id) => (id, None),
    }
}
