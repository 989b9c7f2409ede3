package ovs

import "slices"

// operation is one step of a transaction, and condition values, rows and sets are in
// the notation of RFC 7047 §5.
type operation map[string]any

type columns map[string]any

func insert(table, name string, row columns) operation {
	return operation{"op": "insert", "table": table, "uuid-name": name, "row": row}
}

func update(table, uuid string, row columns) operation {
	return operation{"op": "update", "table": table, "where": is(uuid), "row": row}
}

func deleteRow(table, uuid string) operation {
	return operation{"op": "delete", "table": table, "where": is(uuid)}
}

func mutate(table, uuid string, mutations ...any) operation {
	return operation{"op": "mutate", "table": table, "where": is(uuid), "mutations": mutations}
}

func is(uuid string) any { return []any{[]any{"_uuid", "==", []any{"uuid", uuid}}} }

func add(column string, value any) any    { return []any{column, "insert", value} }
func remove(column string, value any) any { return []any{column, "delete", value} }

// putKeys replaces keys of a map column and leaves the others: "insert" alone keeps an
// old value.
func putKeys(column string, m map[string]string) []any {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return []any{remove(column, set(keys)), add(column, textMap(m))}
}

// touch asks ovs-vswitchd to go over its configuration and to say when it has.
func touch(v view) operation { return mutate("Open_vSwitch", v.root.UUID, []any{"next_cfg", "+=", 1}) }

// named is a row that this transaction inserts.
func named(name string) any { return []any{"named-uuid", name} }

func uuid(id string) any { return []any{"uuid", id} }

func set(texts []string) any { return []any{"set", texts} }

func textMap(m map[string]string) any {
	pairs := make([][2]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, [2]string{k, v})
	}
	return []any{"map", pairs}
}
