//! A writer that nobody refuses anything: it signs whatever it is told to write.

use ed25519_dalek::{Signer, SigningKey};
use vudo_crdt::head::Head;
use vudo_crdt::merkle::{MerkleLog, leaf_hash};
use vudo_crdt::{
    Change, FieldSchema, FrameWriter, InMemory, Namespace, Observer, ReplicaIndex, Seal, Strategy,
    Transaction, Value, ValueType, write_signed_frame,
};
use vudo_state::{PublicKey, RIGHTS_GEN, RightsRecord, SecretKeyBytes, SignedRecord};

/// Signs for the key that begins with this byte.
pub(crate) fn secret(name: u8) -> SecretKeyBytes {
    [name; 32]
}

pub(crate) fn public(name: u8) -> PublicKey {
    public_of(&SigningKey::from_bytes(&secret(name)))
}

/// A record signed by the key that begins with this byte.
pub(crate) fn signed(record: RightsRecord, namespace: &str, name: u8) -> SignedRecord {
    SignedRecord::sign(record, namespace, &secret(name)).unwrap()
}

pub(crate) struct Writer {
    name: String,
    key: SigningKey,
    namespace: Namespace,
    own: ReplicaIndex,
    log: MerkleLog,
    pub(crate) count: u64,
}

/// Keeps the last change.
#[derive(Default)]
struct Last(Vec<u8>);

impl Observer for Last {
    const SEES_ROWS: bool = false;

    fn change(&mut self, change: &Change<'_>) {
        self.0.clear();
        change.write_log_record(&mut self.0);
    }
}

impl Writer {
    pub(crate) fn new(namespace: &str, name: u8) -> Writer {
        let mut tables = Namespace::new(0);
        let own = tables.intern_replica(public(name));
        Writer {
            name: namespace.to_owned(),
            key: SigningKey::from_bytes(&secret(name)),
            namespace: tables,
            own,
            log: MerkleLog::new(),
            count: 0,
        }
    }

    /// A change that sets the titles of these documents, in a signed frame.
    pub(crate) fn write(&mut self, documents: &[(&str, &str)]) -> Vec<u8> {
        let title = FieldSchema::new("title", 1, Strategy::Lww, ValueType::String);
        let value = Value::from(format!("change {} of {:?}", self.count + 1, self.own));
        self.change(documents, &title, &value)
    }

    /// A change with records, in a signed frame.
    pub(crate) fn carry(&mut self, record: &SignedRecord) -> Vec<u8> {
        let field = FieldSchema::new("record", 1, Strategy::Immutable, ValueType::Bytes);
        let key: String = record.id().iter().map(|byte| format!("{byte:02x}")).collect();
        self.change(&[(RIGHTS_GEN, &key)], &field, &record.bytes().into())
    }

    fn change(
        &mut self,
        documents: &[(&str, &str)],
        field: &FieldSchema,
        value: &Value,
    ) -> Vec<u8> {
        self.count += 1;
        let mut transaction = Transaction::begin(&self.namespace, self.own, 1_000 + self.count);
        for (gen_name, key) in documents {
            let gen_index = self.namespace.intern_gen(gen_name).unwrap();
            let (namespace, key) = (&mut self.namespace, key.as_bytes());
            if namespace.loaded_row(gen_index, key).is_none() {
                transaction.create(namespace, &mut InMemory, gen_index, key).unwrap();
            }
            transaction.set(namespace, &mut InMemory, gen_index, key, field, value).unwrap();
        }
        let mut last = Last::default();
        transaction.commit(&mut self.namespace, &mut InMemory, &mut last).unwrap();
        let change = Change::read_log_record(&mut vudo_crdt::wire::Reader::new(&last.0)).unwrap();
        self.log.push(leaf_hash(&self.name, &self.namespace, &change), |_, _| ());
        let keys = [public_of(&self.key)];
        let mut writer = FrameWriter::new(&keys, self.namespace.gen_names());
        writer.push(&change);
        let head = Head {
            namespace: self.name.clone(),
            replica: keys[0],
            length: self.log.length(),
            root: self.log.root(),
        };
        let signature = self.key.sign(&head.bytes_to_sign()).to_bytes();
        let mut frame = Vec::new();
        write_signed_frame(&writer.finish(), &[Seal { root: head.root, signature }], &mut frame);
        frame
    }
}

fn public_of(key: &SigningKey) -> PublicKey {
    vudo_crdt::ReplicaKey(key.verifying_key().to_bytes())
}
