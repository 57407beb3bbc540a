package nearside;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** What tests/clients/with-upstream tells of the servers that it started. */
final class Servers {
    static final String HOST;
    static final int PORT;
    static final boolean IS_CLUSTER = "cluster".equals(System.getenv("NEARSIDE_TEST_UPSTREAM"));
    static final boolean HAS_NEARSIDE = System.getenv("NEARSIDE_ADMIN") != null;

    static {
        String address = System.getenv("NEARSIDE_ADDRESS");
        if (address == null) {
            throw new IllegalStateException("run it so: tests/clients/with-upstream mvn -f tests/clients/java/pom.xml test");
        }
        HOST = address.substring(0, address.lastIndexOf(':'));
        PORT = Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
    }

    private Servers() {}

    static void assumeOneServer() {
        assumeTrue(!IS_CLUSTER || HAS_NEARSIDE, "without Nearside a client of one server cannot use a cluster");
    }

    static void assumeCluster() {
        assumeTrue(IS_CLUSTER, "before a standalone server Nearside shows no cluster");
    }

    /** Runs tasks beside each other, and gives what they return, in their order; what one of them throws is thrown. */
    @SafeVarargs
    static <T> List<T> atOnce(Callable<T>... tasks) throws Exception {
        ExecutorService threads = Executors.newCachedThreadPool();
        try {
            List<Future<T>> futures = new ArrayList<>();
            for (Callable<T> task : tasks) futures.add(threads.submit(task));
            List<T> results = new ArrayList<>();
            for (Future<T> future : futures) results.add(future.get(60, TimeUnit.SECONDS));
            return results;
        } finally {
            threads.shutdownNow();
        }
    }

    @SuppressWarnings("unchecked")
    static <T> Callable<T>[] times(int count, Callable<T> task) {
        Callable<T>[] tasks = new Callable[count];
        java.util.Arrays.fill(tasks, task);
        return tasks;
    }
}
