//! What applying changes does, taken down while it happens: for the log, for subscribers, and for
//! live queries.

use std::sync::{Arc, Mutex, PoisonError};

use vudo_crdt::{
    Cell, Change, FieldSchema, GenIndex, GenSchema, Namespace, Observer, ReplicaIndex, Row, Schema,
    Strategy, split_entry_key,
};

use crate::evolution;
use crate::live::Followed;
use crate::record::load_fields;
use crate::rules::broken_rules;
use crate::shard::Pending;
use crate::stored_chunks::StoredChunks;
use crate::subscription::{ChangeKind, DocumentEvent, Origin, Subscribers, Transition};

/// What has been defined in a store, shared with its namespaces.
pub(crate) type SharedSchema = Arc<Mutex<Arc<Schema>>>;

/// Notes of the changes that are being applied, and whom they are for.
#[derive(Default)]
pub(crate) struct Notices {
    /// Whose rules documents are held against.
    schema: SharedSchema,
    pub(crate) queries: Vec<Followed>,
    /// By index.
    gen_names: Vec<Arc<str>>,
    /// Documents of the change that is being applied.
    documents: Vec<NotedDocument>,
    changes: Vec<Noted>,
}

struct Noted {
    replica: ReplicaIndex,
    number: u64,
    documents: Vec<NotedDocument>,
}

/// The name of its Gen is filled in when it is told: a frame may bring Gens along.
struct NotedDocument {
    gen_index: GenIndex,
    key: String,
    kind: ChangeKind,
    fields: Vec<u32>,
}

impl Notices {
    pub(crate) fn of(schema: SharedSchema) -> Notices {
        Notices { schema, ..Notices::default() }
    }

    /// Makes ready for changes.
    pub(crate) fn prepare(&mut self) {
        self.queries.retain(|query| !query.is_over());
    }

    /// Tells everybody what the changes since did. Their order is the order of the log.
    pub(crate) fn publish(
        &mut self,
        namespace_name: &Arc<str>,
        origin: Origin,
        subscribers: &Subscribers,
        namespace: &mut Namespace,
        chunks: &mut StoredChunks<'_>,
    ) {
        self.queries.iter_mut().for_each(|query| query.finish(namespace, chunks));
        if self.changes.is_empty() {
            return;
        }
        let new_names = namespace.gen_names().skip(self.gen_names.len()).map(Arc::from);
        self.gen_names.extend(new_names);
        let schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for Noted { replica, number, documents } in self.changes.drain(..) {
            let named = |NotedDocument { gen_index, key, kind, mut fields }| {
                let gen_name = self.gen_names[gen_index as usize].clone();
                add_successors(&schema, &gen_name, &mut fields);
                let (mut broken_rules, mut misfits) = (Vec::new(), Vec::new());
                if let (true, Some(gen_schema)) =
                    (kind != ChangeKind::Deleted, schema.gen_named(&gen_name))
                {
                    broken_rules = rules_broken_by(gen_schema, namespace, chunks, gen_index, &key);
                    // What has just been applied is loaded, but for what left memory meanwhile.
                    let row = namespace.row(gen_index, key.as_bytes(), chunks).ok().flatten();
                    let is_changed =
                        |field: &FieldSchema| fields.iter().any(|number| field.reads(*number));
                    misfits = row.map_or_else(Vec::new, |row| {
                        evolution::misfits(gen_schema, &row, is_changed)
                    });
                }
                DocumentEvent { gen_name, key, kind, fields, broken_rules, misfits }
            };
            let documents = documents.into_iter().map(named).collect();
            subscribers.publish(Transition {
                namespace: namespace_name.clone(),
                origin,
                replica: *namespace.replicas().key(replica),
                number,
                documents,
            });
        }
    }
}

/// Adds the fields that read the changed ones, because they were them before.
fn add_successors(schema: &Schema, gen_name: &str, fields: &mut Vec<u32>) {
    let fields_of = schema.gen_named(gen_name).into_iter().flat_map(|one| &one.fields);
    for field in fields_of.filter(|field| field.predecessor.is_some()) {
        let is_changed = fields.iter().any(|number| field.reads(*number));
        if let (true, Err(place)) = (is_changed, fields.binary_search(&field.number)) {
            fields.insert(place, field.number);
        }
    }
}

/// The rules that a document breaks as it is now. One that cannot be read breaks none here: whoever
/// reads it is told why.
fn rules_broken_by(
    gen_schema: &GenSchema,
    namespace: &mut Namespace,
    chunks: &mut StoredChunks<'_>,
    gen_index: GenIndex,
    key: &str,
) -> Vec<String> {
    if gen_schema.rules.is_empty() {
        return Vec::new();
    }
    if load_fields(namespace, chunks, gen_schema, gen_index, key).is_err() {
        return Vec::new();
    }
    let broken = broken_rules(&mut &*namespace, gen_schema, gen_index, key);
    broken.into_iter().map(str::to_owned).collect()
}

/// Takes down what applying a change does.
pub(crate) struct Recorder<'a> {
    pub(crate) pending: &'a mut Pending,
    pub(crate) notices: &'a mut Notices,
    pub(crate) has_subscribers: bool,
}

impl Recorder<'_> {
    /// What has been taken down is the effect of a judgement by this store, not of a change.
    pub(crate) fn judged(self, own: ReplicaIndex) {
        let documents = std::mem::take(&mut self.notices.documents);
        if !documents.is_empty() {
            self.notices.changes.push(Noted { replica: own, number: 0, documents });
        }
    }
}

impl Observer for Recorder<'_> {
    fn change(&mut self, change: &Change<'_>) {
        self.pending.push(change);
        if !self.notices.documents.is_empty() {
            let documents = std::mem::take(&mut self.notices.documents);
            let Change { replica, number, .. } = *change;
            self.notices.changes.push(Noted { replica, number, documents });
        }
    }

    fn row(&mut self, gen_index: GenIndex, before: Option<Row<'_>>, after: Row<'_>) {
        let Notices { queries, documents, .. } = &mut *self.notices;
        queries.iter_mut().for_each(|query| query.stage(gen_index, before, &after));
        if !self.has_subscribers {
            return;
        }
        let was_alive = before.is_some_and(|row| row.is_alive());
        let kind = match (was_alive, after.is_alive()) {
            (false, true) => ChangeKind::Created,
            (true, true) => ChangeKind::Updated,
            (true, false) => ChangeKind::Deleted,
            (false, false) => return,
        };
        let fields = match kind {
            ChangeKind::Deleted => Vec::new(),
            ChangeKind::Created => changed_fields(None, &after),
            ChangeKind::Updated => changed_fields(before.as_ref(), &after),
        };
        // Deleted and made again without a field: nobody can see a difference.
        if kind == ChangeKind::Updated && fields.is_empty() {
            return;
        }
        // Keys are checked to be UTF-8 where they enter.
        let key = String::from_utf8_lossy(after.key).into_owned();
        documents.push(NotedDocument { gen_index, key, kind, fields });
    }

    fn entry(&mut self, gen_index: GenIndex, after: Row<'_>) {
        let Notices { queries, .. } = &mut *self.notices;
        if !self.has_subscribers && queries.is_empty() {
            return;
        }
        let (mut key, mut field_number) = (after.key, 0);
        while let Some((owner, collection, _)) = split_entry_key(key) {
            (key, field_number) = (owner, collection.field_number());
        }
        queries.iter_mut().for_each(|query| query.stage_entries(gen_index, key));
        if !self.has_subscribers {
            return;
        }
        let key = String::from_utf8_lossy(key);
        let documents = &mut self.notices.documents;
        // Entries follow the document that they are in.
        match documents.last_mut() {
            Some(last) if last.gen_index == gen_index && last.key == key => {
                if let Err(place) = last.fields.binary_search(&field_number) {
                    last.fields.insert(place, field_number);
                }
            }
            _ => documents.push(NotedDocument {
                gen_index,
                key: key.into_owned(),
                kind: ChangeKind::Updated,
                fields: vec![field_number],
            }),
        }
    }
}

/// The fields whose cells are not what they were, ascending.
fn changed_fields(before: Option<&Row<'_>>, after: &Row<'_>) -> Vec<u32> {
    let mut fields = Vec::new();
    let mut old = before.into_iter().flat_map(Row::cells).peekable();
    for cell in after.cells() {
        while let Some(gone) = old.next_if(|old| old.id < cell.id) {
            fields.push(gone.id.field_number());
        }
        match old.next_if(|old| old.id == cell.id) {
            Some(old) if is_same(&old, &cell) => {}
            _ => fields.push(cell.id.field_number()),
        }
    }
    fields.extend(old.map(|gone| gone.id.field_number()));
    fields.dedup();
    fields
}

/// Registers are told apart by who wrote them, too; other states name their writers themselves, and
/// carry the stamp of whatever stands in front of them.
fn is_same(left: &Cell<'_>, right: &Cell<'_>) -> bool {
    let is_register = matches!(
        Strategy::from_tag(right.id.tag()),
        Some(Strategy::Immutable | Strategy::Lww | Strategy::LwwContent)
    );
    left.state == right.state && (!is_register || left.stamp == right.stamp)
}
