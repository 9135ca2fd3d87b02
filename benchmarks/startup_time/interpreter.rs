//! How a module starts in an interpreter.

use wasmi::{Engine, Instance, Linker, Store, Val};

/// Compiles and instantiates a module in wasmi, opens its store and creates a user. Gives whether
/// the user exists then.
pub(crate) fn first_operation(wasm: &[u8]) -> bool {
    let engine = Engine::default();
    let module = wasmi::Module::new(&engine, wasm).expect("it is a module");
    let mut store = Store::new(&engine, ());
    let instance = Linker::new(&engine)
        .instantiate_and_start(&mut store, &module)
        .expect("it needs no imports");
    let mut host = Host { store, instance };
    host.put(&[1; 32]);
    assert_eq!(host.call("open", &[Val::I64(7)]), 0);
    host.put(b"alice");
    let now_milliseconds = Val::F64(1_700_000_000_000f64.into());
    assert_eq!(host.call("User.create", &[now_milliseconds]), 0);
    host.put(b"alice");
    host.call("User.exists", &[]) == 0
}

struct Host {
    store: Store<()>,
    instance: Instance,
}

impl Host {
    fn call(&mut self, name: &str, arguments: &[Val]) -> i32 {
        let function = self.instance.get_func(&self.store, name).expect("the module exports it");
        let mut results = [Val::I32(0)];
        function.call(&mut self.store, arguments, &mut results).expect("it does not trap");
        results[0].i32().expect("exports give an i32")
    }

    fn put(&mut self, bytes: &[u8]) {
        let address = self.call("input", &[Val::I32(bytes.len() as i32)]);
        let memory = self.instance.get_memory(&self.store, "memory").expect("it is exported");
        memory.write(&mut self.store, address as usize, bytes).expect("the module made room");
    }
}
