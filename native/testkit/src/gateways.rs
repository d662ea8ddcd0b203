//! Rules and gateways as they are provisioned.

use std::collections::HashMap;
use std::sync::Arc;

use edge::Routing;
use routing::{Builder, LoadOptions};

fn block(rows: &[&[&str]]) -> Vec<u8> {
    rows.iter().flat_map(|row| [row.join("\x1f").as_bytes(), b"\x1e"].concat()).collect()
}

/// Gateways by name, address, strip, prefix and probe mode; carriers by name and list; rules of group 0 by prefix and list.
pub fn gateways(gateways: &[[&str; 5]], carriers: &[[&str; 2]], rules: &[[&str; 2]]) -> Routing {
    let mut builder = Builder::new(LoadOptions::default(), None);
    for [id, address, strip, prefix, probe] in gateways {
        builder.gateways(&block(&[&[id, "0", address, strip, prefix, "", probe, "0", "", "", ""]]));
    }
    for [id, list] in carriers {
        builder.carriers(&block(&[&[id, list, "0", "", "0", "", "", ""]]));
    }
    for (index, [prefix, list]) in rules.iter().enumerate() {
        let id = (index + 1).to_string();
        builder.rules(&block(&[&[&id, "0", prefix, "", "0", "", list, "", "", ""]]));
    }
    Routing::new(vec![(String::new(), Arc::new(builder.finish().table))], &HashMap::new(), None)
}
