// Spares the browser half of its work on a new page. Gradio 6 builds its tree of components, then at once a second time
// from the same configuration, and goes through all events for each component and through the tree for each value.
// Without Gradio's AppTree, or with another configuration, Gradio does what it always does.
import {AppTree} from './assets/CORE_SCRIPT';

const tree = AppTree.prototype, {reload, get_state, register_component, unregister_component} = tree;
const eventsOf = new WeakMap();  // by list of events: the names of each component's
const built = new WeakMap();  // by tree: the list of events that it was built with, until it was to be built again
const mounted = new WeakMap();  // by tree: how to read each component on the page

const sortedByComponent = (dependencies) => {
  const names = new Map();
  for (const {targets} of dependencies) {
    for (const [id, name] of new Map([...targets].reverse())) {  // of several of one component, the first counts
      if (name) names.set(id, [...(names.get(id) ?? []), name]);
    }
  }
  return names;
};

tree.find_attached_events = function (node, dependencies) {
  if (!mounted.has(this)) {
    built.set(this, dependencies);
    mounted.set(this, new Map());
  }
  if (!eventsOf.has(dependencies)) eventsOf.set(dependencies, sortedByComponent(dependencies));
  node.props.shared_props.attached_events = eventsOf.get(dependencies).get(node.id) ?? [];
  return node;
};

tree.reload = function (components, layout, dependencies, ...settings) {
  const isSame = dependencies === built.get(this) && !mounted.get(this).size;
  built.delete(this);
  return isSame ? undefined : reload.call(this, components, layout, dependencies, ...settings);
};

tree.register_component = function (id, set, get) {
  mounted.get(this)?.set(id, {set, get});
  return register_component.call(this, id, set, get);
};

tree.unregister_component = function (id, set) {
  const known = mounted.get(this)?.get(id);
  if (known && (!set || known.set === set)) mounted.get(this).delete(id);
  return unregister_component.call(this, id, set);
};

// Before the first component is on the page, only Gradio's preparation for sound and video asks.
tree.get_state = async function (id) {
  const known = mounted.get(this);
  if (!known) return get_state.call(this, id);
  if (!known.size) return null;
  return known.has(id) ? await known.get(id).get() : get_state.call(this, id);
};
