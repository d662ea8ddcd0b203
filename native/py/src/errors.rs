//! The one place where a native error picks its Python class.

use net::StartError;
use pyo3::PyErr;

pyo3::import_exception!(edgeproxy.errors, BindError);
pyo3::import_exception!(edgeproxy.errors, ConfigError);
pyo3::import_exception!(edgeproxy.errors, EngineError);

pub(crate) fn to_py(error: &StartError) -> PyErr {
    match error {
        StartError::Settings(_) => ConfigError::new_err(error.to_string()),
        StartError::Bind(_) => BindError::new_err(error.to_string()),
        _ => EngineError::new_err(error.to_string()),
    }
}
