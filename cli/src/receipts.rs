//! `holdfast site verify-receipt`: checks hosts' receipts for new keys with the deployment's root certificate alone; nobody
//! is asked.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use holdfast_protocol::pki::pem;
use holdfast_protocol::receipt::{Proof, ProofError};
use holdfast_protocol::wire::RotationReceipt;
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::text::{moment_of_s, say, table};

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Checks every receipt in a file: central's answer to `rotation-receipts`, or the `proof` of one.
pub(crate) fn verify(file: &Path, root: &Path) -> Result<(), Failure> {
    let roots = pem::decode_certificates(&read(root)?)
        .map_err(|error| Failure::unfit(format!("{}: {error}", root.display())))?;
    let document: Value =
        serde_json::from_str(&read(file)?).map_err(|error| Failure::unfit(format!("{}: {error}", file.display())))?;
    let mut proofs = Vec::new();
    collect(&document, &mut proofs);
    if proofs.is_empty() {
        return Err(Failure::unfit(format!("{} has no receipt", file.display())));
    }
    let mut rows = Vec::with_capacity(proofs.len());
    for (number, proof) in (1..).zip(&proofs) {
        let says = check(proof, &roots)
            .map_err(|error| Failure::unfit(format!("receipt {number} of {}: {error}", proofs.len())))?;
        rows.push(row(&says));
    }
    say(table(&["HOST", "SEAL-EPOCH", "DIST-EPOCH", "INSTALLED"], &rows));
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let file = File::open(path).map_err(Failure::file(path))?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(Failure::file(path))?;
    Ok(text)
}

fn collect(value: &Value, proofs: &mut Vec<Proof>) {
    if let Ok(proof) = Proof::deserialize(value) {
        return proofs.push(proof);
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, proofs)),
        Value::Object(members) => members.values().for_each(|value| collect(value, proofs)),
        _ => {}
    }
}

fn check(proof: &Proof, roots: &[Vec<u8>]) -> Result<RotationReceipt, ProofError> {
    let mut failed = ProofError::Malformed("root certificate");
    for root in roots {
        match proof.verify(root) {
            Ok(says) => return Ok(says),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn row(says: &RotationReceipt) -> Vec<String> {
    let dist = says.dist_epoch.map_or_else(|| "no content".to_owned(), |epoch| epoch.to_string());
    vec![says.host.to_string(), says.seal_epoch.to_string(), dist, moment_of_s(says.at_us.div_euclid(1_000_000))]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn receipts_are_found_wherever_they_stand() {
        let proof = json!({ "receipt": "AA==", "signature": "AA==", "certificates": "-" });
        let mut found = Vec::new();
        collect(&json!({ "receipts": [{ "host": "a", "proof": proof }, { "host": "b", "proof": proof }] }), &mut found);
        collect(&proof, &mut found);
        assert_eq!(found.len(), 3);
        assert!(check(&found[0], &[vec![1]]).is_err());
    }

    #[test]
    fn a_file_without_receipts_is_told_apart_from_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, root) = (folder.path().join("receipts.json"), folder.path().join("root.pem"));
        std::fs::write(&root, pem::certificates(&[[1, 2, 3]])).unwrap();
        for text in ["", "{}", "[1]"] {
            std::fs::write(&file, text).unwrap();
            assert!(verify(&file, &root).is_err(), "{text}");
        }
    }
}
