import { networkContract } from './contract.ts';
import { makeFakeNetwork } from './fake.ts';

networkContract('fake', async () => {
  const network = makeFakeNetwork({ address: '127.0.0.1', minPort: 20_000, maxPort: 20_009 });
  return {
    network,
    ports: [20_000, 20_009],
    takeForeign: async (hostPort) => network.foreign.take(`TCP/${hostPort}`),
    leaveForeign: async (hostPort) => network.foreign.leave(`TCP/${hostPort}`),
    close: async () => {},
  };
});
