/* Holds answers to docs/openapi.json. Knows as much of OpenAPI as that file uses. */
import assert from 'node:assert/strict'
import fs from 'node:fs'

const api = JSON.parse(fs.readFileSync(new URL('../../docs/openapi.json', import.meta.url)))

function resolve(object) {
    if (object?.$ref === undefined) {
        return object
    }
    const found = object.$ref.split('/').slice(1).reduce((at, name) => at?.[name], api)
    assert.ok(found, `${object.$ref} is nowhere`)
    return found
}

/* What is wrong with `value`, or undefined. */
export function mismatch(value, reference, where = '') {
    const schema = resolve(reference)
    if (schema.oneOf) {
        const fits = schema.oneOf.filter((one) => mismatch(value, one, where) === undefined)
        return fits.length === 1 ? undefined : `${where}: ${fits.length} of oneOf fit`
    }
    const type = Array.isArray(value) ? 'array' : Number.isInteger(value) ? 'integer' : value === null ? 'null' : typeof value
    if (schema.type && schema.type !== type && !(schema.type === 'number' && type === 'integer')) {
        return `${where}: ${type} instead of ${schema.type}`
    }
    if (schema.enum && !schema.enum.includes(value)) {
        return `${where}: ${value} is none of ${schema.enum}`
    }
    if (value < schema.minimum || value > schema.maximum) {
        return `${where}: ${value} is out of range`
    }
    if (type === 'array') {
        return value.map((one, i) => schema.items && mismatch(one, schema.items, `${where}[${i}]`)).find(Boolean)
    }
    if (type !== 'object') {
        return undefined
    }
    const missing = (schema.required ?? []).find((name) => !(name in value))
    const known = schema.properties ?? {}
    const odd = schema.additionalProperties === false && Object.keys(value).find((name) => !(name in known))
    return missing ? `${where}.${missing} is missing` : odd ? `${where}.${odd} is not described`
        : Object.keys(value).map((name) => known[name] && mismatch(value[name], known[name], `${where}.${name}`)).find(Boolean)
}

/* The description of a request, or undefined. */
export function operation(method, target) {
    const path = target.split('?')[0]
    const found = Object.keys(api.paths).find((template) =>
        new RegExp(`^${template.replace(/\{\w+\}/g, '.+')}$`).test(path))
    return found && api.paths[found][method.toLowerCase()]
}

/* Fails when an answer to a described request is not as described. */
export function checkAnswer(method, target, { status, headers, json }) {
    const described = operation(method, target)
    if (!described) {
        return false
    }
    const response = resolve(described.responses[status] ?? described.responses.default)
    assert.ok(response, `${method} ${target}: ${status} is not described`)
    const schema = response.content?.['application/json']?.schema
    if (schema) {
        assert.equal(headers['content-type'], 'application/json')
        assert.equal(mismatch(json, schema, 'body'), undefined, `${method} ${target}: ${JSON.stringify(json)}`)
    }
    return true
}

export { api }
