//! What each code of a diagnostic means: for `vudo explain`.

/// A code in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// As in a diagnostic, such as `E0301`.
    pub code: &'static str,
    /// In one line.
    pub title: &'static str,
    /// What is behind it and what to do.
    pub text: &'static str,
    /// A source that gets the code, and the same one put right; `None` where a few lines cannot
    /// show it.
    pub example: Option<(&'static str, &'static str)>,
}

/// The explanation of a code, in capitals or not.
pub fn explanation(code: &str) -> Option<&'static Explanation> {
    EXPLANATIONS.iter().find(|known| known.code.eq_ignore_ascii_case(code))
}

/// All of them, in the order of their codes.
pub const EXPLANATIONS: [Explanation; 53] = [
    Explanation {
        code: "E0101",
        title: "something else was expected here",
        text: "The line does not read as the language wants it. The underlined place is the first \
               that cannot be right; what was expected stands under it. The compiler goes on with \
               the next line, so every other error is reported as well.",
        example: Some(("gen Task { has title String }", "gen Task { has title: String }")),
    },
    Explanation {
        code: "E0102",
        title: "the file ends too early",
        text: "The last declaration is not finished.",
        example: Some(("gen Task { has title: String }\ngen", "gen Task { has title: String }")),
    },
    Explanation {
        code: "E0103",
        title: "a text is not closed on its line",
        text: "Texts stand between double quotes and do not go over the end of a line. Write a line \
               break inside of a text as \\n.",
        example: Some((
            "gen Task {\n    has title: String = \"milk\n}",
            "gen Task {\n    has title: String = \"milk\"\n}",
        )),
    },
    Explanation {
        code: "E0104",
        title: "a brace is never closed",
        text: "A block begins here and the next declaration, or the end of the file, comes before \
               its closing brace. Fields that follow are not taken for fields of the next Gen.",
        example: Some((
            "gen Task {\n    has title: String\ngen Note { has text: String }",
            "gen Task {\n    has title: String\n}\ngen Note { has text: String }",
        )),
    },
    Explanation {
        code: "E0105",
        title: "there is no such annotation",
        text: "@crdt(..) says how concurrent writes of a field merge, @index that it is searched by, \
               @personal that it is about a person.",
        example: Some((
            "gen Task { @crtd(lww) has title: String }",
            "gen Task { @crdt(lww) has title: String }",
        )),
    },
    Explanation {
        code: "E0106",
        title: "the source is too long",
        text: "No schema is that long; the file is probably another one. A schema can be spread over \
               several files, which are compiled together.",
        example: None,
    },
    Explanation {
        code: "E0107",
        title: "the lock file is damaged",
        text: "The lock file beside a source keeps the number of each field, which stored and sent \
               bytes go by. Without it, fields would get other numbers and old data would be read \
               under wrong names, so nothing is compiled. Restore it from version control. Where two \
               branches gave one number to two fields, keep the line of one; the other field gets a \
               new number with the next build.",
        example: None,
    },
    Explanation {
        code: "N0108",
        title: "more diagnostics follow",
        text: "Of very many diagnostics of one file only the first are listed and the others counted. \
               Mend the first ones and compile again.",
        example: None,
    },
    Explanation {
        code: "E0109",
        title: "a field has two strategies",
        text: "A value cannot merge in two ways. Keep one @crdt(..) for each field; two behaviours \
               need two fields.",
        example: Some((
            "gen Task { @crdt(lww) @crdt(immutable) has id: String }",
            "gen Task { @crdt(immutable) has id: String }",
        )),
    },
    Explanation {
        code: "E0110",
        title: "types or literals are nested too deep",
        text: "Nobody nests so deep on purpose; the bound keeps a damaged or hostile file from \
               exhausting the compiler. A Gen of its own can hold the inner part.",
        example: None,
    },
    Explanation {
        code: "E0111",
        title: "a comment is never closed",
        text: "A comment that begins with /* goes on to the next */. Without one it would hide the \
               rest of the file.",
        example: Some((
            "gen Task { has title: String }\n/* later",
            "gen Task { has title: String }\n/* later */",
        )),
    },
    Explanation {
        code: "E0112",
        title: "an expression is too long",
        text: "A condition is evaluated at each write, so its length is bounded. Two rules can hold the two halves of it.",
        example: None,
    },
    Explanation {
        code: "E0201",
        title: "a name is too long",
        text: "Names of Gens travel with changes, so their length is bounded.",
        example: None,
    },
    Explanation {
        code: "E0202",
        title: "two Gens or enums have one name",
        text: "Gens and enums of all files that are compiled together share their names. A qualified name, as in \
               shop.Item, keeps two apart.",
        example: Some((
            "gen Item { has a: i64 }\ngen Item { has b: i64 }",
            "gen Item { has a: i64 }\ngen shop.Item { has b: i64 }",
        )),
    },
    Explanation {
        code: "E0203",
        title: "two fields have one name",
        text: "A Gen can be asked for a field by its name, so the name must be its own.",
        example: Some((
            "gen Task { has title: String, has title: i64 }",
            "gen Task { has title: String, has size: i64 }",
        )),
    },
    Explanation {
        code: "E0204",
        title: "a Gen has used up its field numbers",
        text: "Numbers of fields are never used again, because old data may still carry them. A Gen \
               that has had so many fields is better split.",
        example: None,
    },
    Explanation {
        code: "E0205",
        title: "this is no type",
        text: "Types are String, Bool, integers (i8 to i64, u8 to u64, Int, UInt), floats (f32, f64, \
               Float), times in milliseconds (Timestamp, Duration) and bytes (Bytes, Uuid, Identity), \
               in capitals or not; Set<T>, List<T>, Map<K, V>, Option<T>, Ref<Gen> and (A, B) are made of others. \
               Int, UInt and times are numbers that JavaScript holds exactly.",
        example: Some(("gen Task { has done: Bool<i64> }", "gen Task { has done: Bool }")),
    },
    Explanation {
        code: "E0206",
        title: "the field is not in this version",
        text: "The language knows the field's type and strategy, and this version cannot store it yet. It is refused, and not \
               stored in some other way, because what is stored is never interpreted anew.",
        example: Some((
            "gen Task { @crdt(map, value = or_set) has tags: Map<String, Set<String>> }",
            "gen Task { @crdt(map) has tags: Map<String, String> }",
        )),
    },
    Explanation {
        code: "E0207",
        title: "the default does not fit the field",
        text: "A default is what a reader sees while nobody has written the field. It must be a value \
               that could be written. Counters begin at 0 and have no other default.",
        example: Some(("gen Task { has size: u8 = 300 }", "gen Task { has size: u16 = 300 }")),
    },
    Explanation {
        code: "E0208",
        title: "there are too many Gens",
        text: "A namespace holds a bounded number of Gens. Spread them over several schemas.",
        example: None,
    },
    Explanation {
        code: "W0209",
        title: "no Gen or enum has this name",
        text: "Nothing says what a value of this type looks like, so it is kept as an opaque value: it is stored and merged whole, and nobody looks inside. That is right for a type of another file that is not compiled here. Where the shape matters (in a counter, a set, a rule) the name is an error.",
        example: Some((
            "gen Task { has state: TaskStat }",
            "gen Task { has state: TaskState }\nenum TaskState { Open, Done }",
        )),
    },
    Explanation {
        code: "W0210",
        title: "there is no Gen to extend",
        text: "A Gen has the fields of the Gen that it extends as well. That one is not among the files, so this Gen has only its own fields. Name the other file on the command line too.",
        example: Some((
            "gen Task extends Thing { has title: String }",
            "gen Thing { has id: String }\ngen Task extends Thing { has title: String }",
        )),
    },
    Explanation {
        code: "E0211",
        title: "a Gen extends itself",
        text: "Following `extends` from Gen to Gen comes back to where it began, or goes on for too long.",
        example: Some((
            "gen A extends B { has a: i64 }\ngen B extends A { has b: i64 }",
            "gen A extends B { has a: i64 }\ngen B { has b: i64 }",
        )),
    },
    Explanation {
        code: "E0212",
        title: "two variants have one name",
        text: "A value of an enum is the number of a variant, and each name stands for one number.",
        example: Some(("enum State { Open, Done, Open }", "enum State { Open, Done }")),
    },
    Explanation {
        code: "E0301",
        title: "there is no such strategy",
        text: "A strategy says how concurrent writes merge: immutable keeps the first value, lww the \
               latest, mv_register all that no later write has seen; g_counter, pn_counter and \
               bounded_counter add up what everybody added; or_set and map merge element by element.",
        example: Some((
            "gen Task { @crdt(lwv) has title: String }",
            "gen Task { @crdt(lww) has title: String }",
        )),
    },
    Explanation {
        code: "E0303",
        title: "the strategy has no such option",
        text: "lww takes tie_break; counters take min_value, max_value and overflow_strategy; map \
               takes value; peritext takes formatting and max_length; all take clock = \"hlc\".",
        example: Some((
            "gen Task { @crdt(lww, tie_brake = \"content\") has title: String }",
            "gen Task { @crdt(lww, tie_break = \"content\") has title: String }",
        )),
    },
    Explanation {
        code: "E0304",
        title: "this is no value for the option",
        text: "What the option takes stands under the place.",
        example: Some((
            "gen Task { @crdt(pn_counter, overflow_strategy = \"wrapp\") has size: i64 }",
            "gen Task { @crdt(pn_counter, overflow_strategy = \"wrap\") has size: i64 }",
        )),
    },
    Explanation {
        code: "E0305",
        title: "no count is within the bounds",
        text: "min_value must not be above max_value, and both must be values that the type of the \
               field can have. Bounds refuse local writes; replicas that were apart may still pass a \
               bound together.",
        example: Some((
            "gen Task { @crdt(pn_counter, max_value = 256) has size: u8 }",
            "gen Task { @crdt(pn_counter, max_value = 255) has size: u8 }",
        )),
    },
    Explanation {
        code: "E0306",
        title: "the strategy does not merge this type",
        text: "Counters add up integers (pn_counter floats too), or_set merges sets, map maps, and \
               registers (immutable, lww, mv_register) keep values of every type but rich text.",
        example: Some((
            "gen Task { @crdt(pn_counter) has done: Bool }",
            "gen Task { @crdt(lww) has done: Bool }",
        )),
    },
    Explanation {
        code: "E0307",
        title: "an option is given twice",
        text: "Two values for one option contradict each other, or one of them is superfluous.",
        example: Some((
            "gen Task { @crdt(pn_counter, min_value = 1, min_value = 0) has size: i64 }",
            "gen Task { @crdt(pn_counter, min_value = 0) has size: i64 }",
        )),
    },
    Explanation {
        code: "W0307",
        title: "sums of floats depend on rounding",
        text: "Every replica keeps what it added itself and reads the sum of all. Replicas agree on \
               it, but floats lose digits, so the sum is approximate. Count in a smaller unit, as in \
               cents instead of euros, to have exact sums.",
        example: Some((
            "gen Part { @crdt(pn_counter) has mass: f64 }",
            "gen Part { @crdt(pn_counter) has mass_milligrams: i64 }",
        )),
    },
    Explanation {
        code: "W0308",
        title: "a counter begins outside of its bounds",
        text: "A counter begins at 0. Where 0 is out of its bounds, a write is refused unless it comes \
               nearer to them.",
        example: Some((
            "gen Task { @crdt(pn_counter, min_value = 1) has size: i64 }",
            "gen Task { @crdt(pn_counter, min_value = 0) has size: i64 }",
        )),
    },
    Explanation {
        code: "N0309",
        title: "sequences are not in this version",
        text: "Lists and texts whose order merges (rga, list, peritext) are parsed and checked in full, so that a schema can be written for them, and come in a later version. Checking passes; building is refused.",
        example: Some((
            "gen Note { @crdt(peritext) has text: String }",
            "gen Note { @crdt(lww) has text: String }",
        )),
    },
    Explanation {
        code: "E0309",
        title: "sequences are not in this version",
        text: "Lists and texts whose order merges (rga, list, peritext) are parsed and checked in full and come in a later version. This version refuses to build or store them, and does not store them in some other way, because what is stored is never interpreted anew.",
        example: Some((
            "gen Note { @crdt(rga) has lines: List<String> }",
            "gen Note { @crdt(mv_register) has lines: List<String> }",
        )),
    },
    Explanation {
        code: "W0310",
        title: "a collection is kept as one value",
        text: "Under a register a whole set, list or map is one value. Of two replicas that each change it apart from the other, one loses its change. or_set and map merge element by element; mv_register keeps both versions.",
        example: Some((
            "gen Task { @crdt(lww) has tags: Set<String> }",
            "gen Task { @crdt(or_set) has tags: Set<String> }",
        )),
    },
    Explanation {
        code: "W0311",
        title: "or_set keeps the keys of a map only",
        text: "An or_set holds elements. Of a field of type Map it holds the keys, and no values.",
        example: Some((
            "gen Task { @crdt(or_set) has votes: Map<String, i64> }",
            "gen Task { @crdt(map, value = pn_counter) has votes: Map<String, i64> }",
        )),
    },
    Explanation {
        code: "W0401",
        title: "kept, not executed in this version",
        text: "The file is understood and this part of it has no effect yet: functions, traits, \
               systems, constraints and migrations are kept as text, conditions and rules are \
               checked and carried in the schema. Nothing executes them.",
        example: Some((
            "gen Task { has size: u8 fun double() -> u8 { return size * 2 } }",
            "gen Task { has size: u8 }",
        )),
    },
    Explanation {
        code: "W0402",
        title: "personal, and not yet encrypted",
        text: "The annotation says that the field is about a person. It will be encrypted and erasable \
               in a later version; in this one it syncs like any other field, to everybody who has a \
               ticket.",
        example: Some((
            "gen Person { @personal has name: String }",
            "gen Person { has name: String }",
        )),
    },
    Explanation {
        code: "E0501",
        title: "the types of an expression do not go together",
        text: "Numbers are compared and computed with numbers, texts with texts, variants with variants of their enum; `and`, `or` and `not` take conditions.",
        example: Some((
            "gen Task { has size: i64 where size > \"a\" }",
            "gen Task { has size: i64 where size > 1 }",
        )),
    },
    Explanation {
        code: "E0502",
        title: "there is no such field",
        text: "An expression reads the fields of its own record, as `this.size` or `size`, and the variants of enums.",
        example: Some((
            "gen Task { has size: i64 where this.sizes > 1 }",
            "gen Task { has size: i64 where this.size > 1 }",
        )),
    },
    Explanation {
        code: "E0503",
        title: "there is no such method here",
        text: "The methods are .len(), .contains(x), .starts_with(x), .ends_with(x), .matches(pattern), .is_empty(), .is_some(), .is_none() and .unwrap_or(x).",
        example: Some((
            "gen Task { has title: String where title.lenght() > 0 }",
            "gen Task { has title: String where title.len() > 0 }",
        )),
    },
    Explanation {
        code: "E0504",
        title: "this is no regular expression",
        text: "A pattern is compiled when the file is. Matching takes linear time, so there is no look-around and there are no back-references.",
        example: Some((
            "gen Task { has title: String where title.matches(\"(a\") }",
            "gen Task { has title: String where title.matches(\"(a)\") }",
        )),
    },
    Explanation {
        code: "E0505",
        title: "a rule assigns a field",
        text: "A rule is a condition: it says what must hold, and changes nothing. An immutable field in particular is set once, by whoever creates the document.",
        example: Some((
            "gen Task { @crdt(immutable) has id: String rule r { this.id = \"a\" } }",
            "gen Task { @crdt(immutable) has id: String rule r { this.id == \"a\" } }",
        )),
    },
    Explanation {
        code: "E0506",
        title: "there are no functions in expressions",
        text: "A rule or a conversion is computed by every replica for itself, so it reads its record and nothing else. A clock or randomness would give every replica another result.",
        example: Some((
            "gen Task { has due: Timestamp where due > now() }",
            "gen Task { has due: Timestamp where due > 0 }",
        )),
    },
    Explanation {
        code: "E0507",
        title: "a condition is true or false",
        text: "What stands behind `where`, or inside of a rule, is compared or asked about: a number alone says nothing.",
        example: Some((
            "gen Task { has size: i64 where size + 1 }",
            "gen Task { has size: i64 where size > 1 }",
        )),
    },
    Explanation {
        code: "N0601",
        title: "what changes for replicas of the old version",
        text: "`vudo check --against` says of each change what a replica sees that has not upgraded. Replicas of both versions hold the same cells and stay equal, whatever they show.",
        example: None,
    },
    Explanation {
        code: "E0602",
        title: "a field is removed that others may still write",
        text: "Replicas of the old version go on writing the field, and what they write would be seen by nobody here. Deprecate it first (`evolves Task @ 1.0 > 1.1 { deprecates size }`); the version after that can leave it out.",
        example: None,
    },
    Explanation {
        code: "E0603",
        title: "an evolution contradicts the Gen",
        text: "A renamed field is one field under a new name, so the Gen cannot have both names; and only a field that the Gen has can change.",
        example: Some((
            "gen Task { has title: String has name: String }\nevolves Task @ 1.0 > 1.1 { renames name to title }",
            "gen Task { has title: String }\nevolves Task @ 1.0 > 1.1 { renames name to title }",
        )),
    },
    Explanation {
        code: "E0604",
        title: "nothing says what old values become",
        text: "A field of another strategy or type gets a new number and reads the old one until it is written. Where old values are not values of the new field as they are (narrowing, a register that becomes a counter, an enum that becomes a text), an expression over the old record says what they become. Sets and maps come of no expression, and a bounded_counter takes over nothing, for old replicas would not keep to its bounds: these need a field of their own. Safe without a word are immutable to lww, lww to mv_register, g_counter to pn_counter, a wider integer (also inside of sets and maps), and a new variant of an enum.",
        example: None,
    },
    Explanation {
        code: "E0605",
        title: "the conversion gives another type",
        text: "The expression behind `with` reads the old record and gives a value of the new field: its own name is the old value, any other name a register or counter of the document. An enum becomes a text by its name alone. A value of which the conversion makes nothing that fits the new type reads as absent and is kept. Conversions that read each other's fields in a circle have no beginning, and regular expressions are not on every replica.",
        example: None,
    },
    Explanation {
        code: "E0607",
        title: "two fields have one number",
        text: "Stored and sent data name a field by its number. Two branches that gave one number to different fields would each read the other's values, so they are told: take one lock file, and the compiler gives the other field a new number.",
        example: None,
    },
    Explanation {
        code: "W0608",
        title: "a variant is gone",
        text: "Values of an enum are numbers. Old values of the variant are kept and passed on, and read as a number without a name.",
        example: None,
    },
    Explanation {
        code: "E0609",
        title: "the old files are in error",
        text: "The versions are compared when both are right. Check the old files on their own first.",
        example: None,
    },
];
