import { group, version } from './meta.ts';
import { hypervisorNodeKind } from './hypervisornode.ts';
import { kinds } from './kinds.ts';
import { allowDeleteAnnotation } from './names.ts';
import { virtualMachineKind } from './virtualmachine.ts';

/** What may write the status of our objects. */
const writeStatusVerb = 'write-status';

/** The part of admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy that Strato uses. Source: KEP-3488. */
export type Policy = {
  apiVersion: 'admissionregistration.k8s.io/v1';
  kind: 'ValidatingAdmissionPolicy';
  metadata: { name: string };
  spec: {
    failurePolicy: 'Fail';
    matchConstraints: { resourceRules: { apiGroups: string[]; apiVersions: string[]; operations: ('DELETE' | 'UPDATE')[]; resources: string[] }[] };
    matchConditions?: { name: string; expression: string }[];
    validations: { expression: string; message: string; messageExpression?: string; reason: 'Forbidden' }[];
  };
};

/** A binding that puts a policy into force everywhere. */
export type PolicyBinding = {
  apiVersion: 'admissionregistration.k8s.io/v1';
  kind: 'ValidatingAdmissionPolicyBinding';
  metadata: { name: string };
  spec: { policyName: string; validationActions: ['Deny'] };
};

const policy = (name: string, spec: Omit<Policy['spec'], 'failurePolicy'>): Policy => ({
  apiVersion: 'admissionregistration.k8s.io/v1', kind: 'ValidatingAdmissionPolicy', metadata: { name: `${name}.${group}` },
  spec: { failurePolicy: 'Fail', ...spec },
});

/** The first of two locks; the operator's is the other one, since deleting the CRD goes round policies. */
const deletionProtection = policy('deletion-protection', {
  matchConstraints: {
    resourceRules: [{ apiGroups: [group], apiVersions: [version], operations: ['DELETE'], resources: [virtualMachineKind.plural] }],
  },
  validations: [{
    expression: '!oldObject.?spec.?deletionProtection.orValue(false)',
    message: 'the VM is protected: set spec.deletionProtection to false, then delete it',
    messageExpression: [
      `'VM ' + oldObject.metadata.name + ' is protected: set spec.deletionProtection to false, then delete it (kubectl -n '`,
      `oldObject.metadata.namespace + ' patch vm ' + oldObject.metadata.name`,
      `' --type=merge -p \\'{"spec":{"deletionProtection":false}}\\')'`,
    ].join(' + '),
    reason: 'Forbidden',
  }],
});

/** Deleting a CRD deletes every object of that kind, and asks no policy about any of them. */
const crdDeletion = policy('crd-deletion', {
  matchConstraints: {
    resourceRules: [{ apiGroups: ['apiextensions.k8s.io'], apiVersions: ['v1'], operations: ['DELETE'], resources: ['customresourcedefinitions'] }],
  },
  // By the object and not by resourceNames: a deletion of many has no name in its request.
  matchConditions: [{ name: 'ours', expression: `oldObject.spec.group == '${group}'` }],
  validations: [{
    expression: `oldObject.metadata.?annotations['${allowDeleteAnnotation}'].orValue('false') != 'false'`,
    message: `this would delete every object of the kind; to allow it, annotate the CRD with ${allowDeleteAnnotation}=true`,
    messageExpression: [
      `'this would delete every ' + oldObject.spec.names.kind + '; to allow it: kubectl annotate crd ' + oldObject.metadata.name`,
      `' ${allowDeleteAnnotation}=true'`,
    ].join(' + '),
    reason: 'Forbidden',
  }],
});

/**
 * What a status says decides which machine and which disk is ended with an object, on a node that belongs to all: who may do everything in one
 * namespace must not say it. The verb is one of ours, on a resource that has no namespace, so that no Role can give it.
 */
const statusWriter = policy('status-writer', {
  matchConstraints: {
    resourceRules: [{ apiGroups: [group], apiVersions: [version], operations: ['UPDATE'], resources: kinds.map(({ plural }) => `${plural}/status`) }],
  },
  validations: [{
    expression: `authorizer.group('${group}').resource('${hypervisorNodeKind.plural}').check('${writeStatusVerb}').allowed()`,
    message: `status is written by Strato's operator alone: it takes the verb ${writeStatusVerb} on ${hypervisorNodeKind.plural}.${group}, by a ClusterRole`,
    reason: 'Forbidden',
  }],
});

/** Every policy that comes with the CRDs. */
export const policies: readonly Policy[] = [deletionProtection, crdDeletion, statusWriter];

/** The binding of a policy: it denies, in every namespace, for everyone. */
export const bindingOf = ({ metadata: { name } }: Policy): PolicyBinding => ({
  apiVersion: 'admissionregistration.k8s.io/v1', kind: 'ValidatingAdmissionPolicyBinding', metadata: { name },
  spec: { policyName: name, validationActions: ['Deny'] },
});
