use super::parse;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::syntax::{
    AnnotationKind, BlockKind, FieldSyntax, FileSyntax, GenSyntax, ItemSyntax, Literal,
    MemberSyntax, StepSyntax, TypeKind, TypeSyntax, VariantSyntax,
};

const EVERYTHING: &str = include_str!("../../tests/corpus/everything.dol");

fn parsed(source: &str) -> (FileSyntax, Vec<Diagnostic>) {
    let mut diagnostics = Diagnostics::new(0);
    let file = parse(source, &mut diagnostics);
    (file, diagnostics.into_sorted())
}

fn good(source: &str) -> FileSyntax {
    let (file, diagnostics) = parsed(source);
    assert_eq!(diagnostics, [], "{source}");
    file
}

fn only_gen(file: &FileSyntax) -> &GenSyntax {
    let mut gens = file.items.iter().filter_map(|item| match item {
        ItemSyntax::Gen(syntax) => Some(syntax),
        _ => None,
    });
    let only = gens.next().unwrap();
    assert!(gens.next().is_none());
    only
}

fn fields(syntax: &GenSyntax) -> Vec<&FieldSyntax> {
    let members = syntax.members.iter();
    let fields = members.filter_map(|member| match member {
        MemberSyntax::Field(field) => Some(field),
        _ => None,
    });
    fields.collect()
}

fn texts(variants: &[VariantSyntax]) -> Vec<&str> {
    variants.iter().map(|variant| variant.name.text.as_str()).collect()
}

/// A type as it would be written without white space.
fn written(syntax: &TypeSyntax) -> String {
    let list = |types: &[TypeSyntax]| types.iter().map(written).collect::<Vec<_>>().join(",");
    match &syntax.kind {
        TypeKind::Named { name, arguments } if arguments.is_empty() => name.clone(),
        TypeKind::Named { name, arguments } => format!("{name}<{}>", list(arguments)),
        TypeKind::Set(inner) => format!("{{{}}}", written(inner)),
        TypeKind::List(inner) => format!("[{}]", written(inner)),
        TypeKind::Tuple(types) => format!("({})", list(types)),
        TypeKind::Enum(variants) => format!("enum{{{}}}", texts(variants).join(",")),
    }
}

#[test]
fn the_tree_holds_every_item() {
    let file = good(EVERYTHING);
    let ItemSyntax::Module { name, version } = &file.items[0] else {
        panic!("{:?}", file.items[0])
    };
    assert_eq!(name.text, "shop.floor");
    assert_eq!(version.as_ref().unwrap().text, "0.3.0-beta.1");
    assert!(
        matches!(&file.items[1], ItemSyntax::Use(path) if path.text == "shop.{prices, people}")
    );
    let ItemSyntax::Enum { name, variants } = &file.items[2] else { panic!("{:?}", file.items[2]) };
    assert_eq!((name.text.as_str(), texts(variants)), ("Shelf", vec!["Upper", "Lower"]));
    let blocks: Vec<(BlockKind, Option<&str>)> = file
        .items
        .iter()
        .filter_map(|item| match item {
            ItemSyntax::Block(block) => {
                assert!(EVERYTHING[..block.body.start].ends_with('{'));
                assert!(EVERYTHING[block.body.end..].starts_with('}'));
                Some((block.kind, block.name.as_ref().map(|name| name.text.as_str())))
            }
            _ => None,
        })
        .collect();
    let expected = [
        (BlockKind::Trait, Some("shop.sellable")),
        (BlockKind::Constraint, Some("shop.solvency")),
        (BlockKind::Docs, None),
        (BlockKind::System, Some("shop.checkout")),
        (BlockKind::Docs, None),
    ];
    assert_eq!(blocks, expected);
}

#[test]
fn the_tree_holds_every_member() {
    let file = good(EVERYTHING);
    let item = only_gen(&file);
    assert_eq!(item.name.text, "shop.Item");
    assert_eq!(item.version.as_ref().unwrap().text, "1.2.0");
    assert_eq!(item.extends.as_ref().unwrap().text, "shop.Thing");
    let fields = fields(item);
    let names: Vec<&str> = fields.iter().map(|field| field.name.text.as_str()).collect();
    let expected = [
        "id",
        "label",
        "shelf_number",
        "stock",
        "buyer",
        "weight",
        "ratio",
        "large",
        "where",
        "has",
        "docs",
        "rule",
    ];
    assert_eq!(names, expected);
    let condition = fields[2].condition.clone().unwrap().span;
    assert!(EVERYTHING[condition.clone()].starts_with("shelf_number"));
    assert!(EVERYTHING[condition].ends_with("< 100"));
    let AnnotationKind::Crdt { strategy, options } = &fields[3].annotations[0].kind else {
        panic!("{:?}", fields[3]);
    };
    assert_eq!((strategy.text.as_str(), options.len()), ("pn_counter", 4));
    assert_eq!(options[1].1.literal, Literal::Integer(1000));
    assert_eq!(fields[4].annotations.len(), 2);
    assert_eq!(fields[7].default.as_ref().unwrap().literal, Literal::Integer(u64::MAX.into()));

    let bodies: Vec<&str> = item
        .members
        .iter()
        .filter_map(|member| match member {
            MemberSyntax::Block(block) => Some(&EVERYTHING[block.body.clone()]),
            MemberSyntax::Rule(rule) => Some(&EVERYTHING[rule.body.clone()]),
            MemberSyntax::Statement(line) => Some(line.text.as_str()),
            MemberSyntax::Field(_) | MemberSyntax::Enum(_) => None,
        })
        .map(str::trim)
        .collect();
    assert_eq!(bodies.len(), 4);
    assert!(bodies[1].starts_with("if amount > 0 {") && bodies[1].ends_with("amount }"));
    assert_eq!(bodies[2], "item derives from thing");
    assert!(bodies[3].ends_with("\"braces."));
}

#[test]
fn the_tree_holds_every_step_of_an_evolution() {
    let file = good(EVERYTHING);
    let Some(ItemSyntax::Evolution(evolution)) = file.items.last() else { panic!("{file:?}") };
    assert_eq!((evolution.left.text.as_str(), evolution.right.text.as_str()), ("1.1.0", "1.2.0"));
    let [adds, removes, deprecates, renames, changes, because, migrate, statement] =
        &evolution.steps[..]
    else {
        panic!("{:?}", evolution.steps);
    };
    assert!(matches!(adds, StepSyntax::Adds(field) if field.name.text == "buyer"));
    assert!(matches!(removes, StepSyntax::Removes(name) if name.text == "colour"));
    assert!(matches!(deprecates, StepSyntax::Deprecates(name) if name.text == "size"));
    assert!(matches!(renames, StepSyntax::Renames { from, to }
        if from.text == "title" && to.text == "label"));
    let StepSyntax::Changes { name, from, to, with } = changes else { panic!("{changes:?}") };
    assert_eq!(name.text, "stock");
    assert_eq!(from.1.as_ref().map(written).as_deref(), Some("i16"));
    assert_eq!(to.1.as_ref().map(written).as_deref(), Some("i32"));
    assert_eq!(&EVERYTHING[with.clone().unwrap().span], "this.stock * 1");
    assert_eq!(because, &StepSyntax::Because("counts were lost".into()));
    assert!(matches!(migrate, StepSyntax::Migrate(block) if block.kind == BlockKind::Migrate));
    assert!(matches!(statement, StepSyntax::Statement(line)
        if line.text == "adds item is countable"));
}

#[test]
fn types_nest() {
    let types = [
        "Set<String>",
        "{i64}",
        "[chat.message]",
        "Map<String,List<(i8,Option<Bool>)>>",
        "Ref<chat.message>",
        "({Vec<u8>},[[f32]])",
    ];
    for text in types {
        let file = good(&format!("gen A {{ has a: {text} }}"));
        assert_eq!(written(&fields(only_gen(&file))[0].value_type), text);
    }
}

#[test]
fn literals_nest() {
    let file = good(r#"gen A { has a: i64 = [1, -2.5, "x\n\"y", none, Red, [true,],] }"#);
    let default = fields(only_gen(&file))[0].default.as_ref().unwrap().literal.clone();
    let Literal::List(elements) = default else { panic!("{default:?}") };
    let elements: Vec<Literal> = elements.into_iter().map(|element| element.literal).collect();
    assert_eq!(elements[..2], [Literal::Integer(1), Literal::Float(-2.5)]);
    assert_eq!(elements[2], Literal::Text("x\n\"y".into()));
    assert_eq!(elements[3..5], [Literal::None, Literal::Word("Red".into())]);
    assert!(matches!(&elements[5], Literal::List(inner) if inner.len() == 1));
}

#[test]
fn an_annotation_belongs_to_the_field_of_its_line() {
    let strategies = |source: &str| -> Vec<String> {
        let file = good(source);
        let described = fields(only_gen(&file)).into_iter().map(|field| {
            let words = field.annotations.iter().map(|annotation| match &annotation.kind {
                AnnotationKind::Crdt { strategy, .. } => strategy.text.clone(),
                other => format!("{other:?}"),
            });
            format!("{} {}", field.name.text, words.collect::<Vec<_>>().join(" "))
        });
        described.collect()
    };
    let expected = ["a lww", "b immutable"];
    assert_eq!(strategies("gen A { @crdt(lww) has a: i64 @crdt(immutable) has b: i64 }"), expected);
    assert_eq!(strategies("gen A {\na: i64 @crdt(lww)\nb: i64 @crdt(immutable)\n}"), expected);
    assert_eq!(strategies("gen A {\n@crdt(lww)\na: i64\n@crdt(immutable)\nb: i64\n}"), expected);
    assert_eq!(
        strategies("gen A {\na: i64 @crdt(lww),\n@crdt(immutable) it has b: i64}"),
        expected
    );
}

#[test]
fn a_version_may_touch_what_is_around_it() {
    let file = good("gen A@1.0.0{has a:i64}\nevo A@1.0>2.0{}\ngen B @ 2 extends A {}");
    assert_eq!(file.items.len(), 3);
    let ItemSyntax::Gen(last) = &file.items[2] else { panic!("{file:?}") };
    assert_eq!(last.version.as_ref().unwrap().text, "2");
    assert_eq!(last.extends.as_ref().unwrap().text, "A");
}
